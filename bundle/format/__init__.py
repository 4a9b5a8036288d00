"""The form of a bundle, byte by byte: tar, manifest, parts, layers, deltas.

Nothing is trusted: each thing has one form, and any other is refused. This package checks no
signatures.
"""
