"""Counts the bytes of a zstd stream with the system's own libzstd, and discards them.

Python has no zstd module before 3.14. Every supported system has the library, because its package
manager needs it. The library gets only bytes whose hash was compared with what was signed.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from bundle.errors import AirliftError, Kind

#: Returns bytes of a stream from an offset on, at most as many as requested.
Read = Callable[[int, int], bytes]
_NAME = "libzstd.so.1"
_PIECE = 256 << 10
# A decoder keeps its frame's window and some more. A layer of ours has one of 33.6 MB, and any may
# have one of 134 MB.
_BESIDE_WINDOW = 1 << 20


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer, which have the same form."""

    _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t), ("done", ctypes.c_size_t))


class Memory:
    """Memory for decoders that run beside each other; one that needs more than all runs alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._returned = threading.Condition()

    @contextmanager
    def borrowed(self, size: int) -> Iterator[None]:
        """Wait until so much is free, and take it for a ``with`` block."""
        size = min(size, self._size)
        with self._returned:
            self._returned.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._returned:
                self._free += size
                self._returned.notify_all()


# For two layers of ours: the verifier needs 26 MB itself, and promises to stay below 100.
_DECODERS = Memory(72 << 20)


def count(read: Read, limit: int, window: int) -> int:
    """Return the unpacked size of a stream; stop reading above the limit.

    ``window`` is the largest that one of its frames states.

    Raises:
        ValueError: it is not a complete zstd stream.
        AirliftError: this machine has no libzstd.
    """
    library = _library()
    with _DECODERS.borrowed(window + _BESIDE_WINDOW):
        decoder = library.ZSTD_createDStream()
        try:
            return _count(library, decoder, read, limit)
        finally:
            library.ZSTD_freeDStream(decoder)


def _count(library: ctypes.CDLL, decoder: int, read: Read, limit: int) -> int:
    total, at, wanted = 0, 0, 0
    scratch = ctypes.create_string_buffer(_PIECE)
    out = _Buffer(ctypes.addressof(scratch), _PIECE, 0)
    while data := read(at, _PIECE):
        at += len(data)
        held = ctypes.c_char_p(data)
        given = _Buffer(ctypes.cast(held, ctypes.c_void_p).value, len(data), 0)
        # A full buffer may mean that there is more.
        while given.done < given.size or out.done == out.size:
            out.done = 0
            wanted = library.ZSTD_decompressStream(decoder, ctypes.byref(out), ctypes.byref(given))
            if library.ZSTD_isError(wanted):
                raise ValueError(library.ZSTD_getErrorName(wanted).decode("ascii", "replace"))
            total += int(out.done)
            if total > limit:
                return total
    if wanted:
        message = "it ends inside a frame"
        raise ValueError(message)
    return total


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_NAME)
    except OSError as error:
        raise AirliftError(
            Kind.PYTHON,
            f"this machine has no {_NAME}, which is needed to count a layer's size",
            where="the system's libraries",
            fix="install it (package libzstd1, or libzstd on RHEL), and run this command again",
        ) from error
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_freeDStream.argtypes = (ctypes.c_void_p,)
    buffer = ctypes.POINTER(_Buffer)
    library.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, buffer, buffer)
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library
