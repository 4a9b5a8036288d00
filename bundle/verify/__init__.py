"""Whether a bundle is what was signed: every byte is hashed once, nothing is written."""
