"""Makes a bundle on the vendor's machine; the only part that needs an engine or a network."""
