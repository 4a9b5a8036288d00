"""Parts for small sticks: a bundle is split and joined, and each bad part is named.

The index is written last: where it is, all parts were written, flushed and read again.
"""
