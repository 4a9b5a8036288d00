"""Parts for small drives: split a bundle, join its parts, and name each bad part.

The index is written last: if it exists, all parts were written, flushed and read again.
"""
