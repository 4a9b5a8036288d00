"""Checks that a bundle is what was signed.

The manifest is authenticated before it is parsed, and every byte is hashed once. A member is
returned, or committed, only after its hash was compared. What a host accepted before is passed in
as a `History`, which hides where it is kept.
"""
