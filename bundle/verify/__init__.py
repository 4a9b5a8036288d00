"""Whether a bundle is what was signed.

The manifest is authenticated before it is parsed, and every byte is hashed once. A member is handed
out, or committed, only after its hash was compared. What a host accepted before comes in as a
`History`: nothing here knows where that is kept.
"""
