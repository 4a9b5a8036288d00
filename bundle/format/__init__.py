"""What a bundle is, byte by byte: tar, manifest, parts, layers. Looks at bytes, trusts nobody."""
