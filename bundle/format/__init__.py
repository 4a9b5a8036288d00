"""What a bundle is, byte by byte: tar, manifest, parts, layers, deltas.

Trusts nobody: there is one form for each thing, and any other is refused. Nothing here asks who
signed, and nothing is written.
"""
