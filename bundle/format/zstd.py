"""What comes out of a zstd stream, counted by the system's own libzstd; nothing of it is kept.

Python has no zstd of its own before 3.14. Every supported system has the library, for its package
manager reads packages with it. It sees only bytes whose hash was compared with what was signed.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache

from bundle.errors import AirliftError, Kind

#: Bytes of a stream from a place on, as many as there are but no more than asked for.
Read = Callable[[int, int], bytes]
_NAME = "libzstd.so.1"
_PIECE = 256 << 10
# A decoder holds its frame's window, of up to 128 MiB: one at a time.
_ONE = threading.Lock()


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer, which are alike."""

    _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t), ("done", ctypes.c_size_t))


def count(read: Read, limit: int) -> int:
    """Return how many bytes a stream gives; above the limit it is not read on.

    Raises:
        ValueError: it is no whole zstd stream.
        AirliftError: this machine has no libzstd.
    """
    library = _library()
    with _ONE:
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
        # What is full may be so because there is more.
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
            f"this machine has no {_NAME}, by which the size of a layer is counted",
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
