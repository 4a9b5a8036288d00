"""Counts how large a layer becomes when an engine unpacks it, and so refuses a bomb.

An engine recognises the compression by a layer's first bytes, not by its media type, and so does
this. A gzip stream states no size, so it is unpacked here, in small pieces. For zstd, each block
has a maximum, and the blocks are added up. Only if their sum is too large is the stream unpacked
and counted, after its hash was compared. The size that a frame's head states can only refuse the
layer, never accept it.
"""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, NoReturn

from bundle.errors import AirliftError, Kind

if TYPE_CHECKING:
    from bundle.format.zstd import Read

_GZIP = b"\x1f\x8b"
_ZSTD = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
# Docker also unpacks these, but OCI does not allow them for layers.
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_SNIFF = 6
_PIECE = 1 << 20
# RFC 8878: the most bytes that a block can unpack to.
_BLOCK = 128 << 10


class Unpacked:
    """Counts one layer, until it is larger than its image may be or malformed.

    Only `check` raises the error, after the layer's hash was compared with what was signed.
    """

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._refusal: AirliftError | None = None
        #: Bytes of the layer as a tar file, so far. For zstd, until `check`, only the certain ones.
        self.size = 0
        # The maximum that zstd's compressed blocks can add, and the largest window of their frames.
        self._more = 0
        self._window = 0
        self._start = b""
        self._kind = ""
        self._gzip = zlib.decompressobj(wbits=31)
        self._in_member = False
        # The state of a zstd stream at the start of the next piece.
        self._carried = b""
        self._skip = 0
        self._in_frame = False
        self._checksum = 0

    def feed(self, piece: memoryview) -> None:
        """Take the next bytes of the layer; ignore them after a reason to refuse it."""
        if self._refusal is None:
            try:
                self._take(piece)
            except AirliftError as error:
                self._refusal = error

    def check(self, read: Read) -> None:
        """Refuse the layer if there was a reason, or if its stream is incomplete.

        `read` returns the layer's bytes again, after its hash was compared.
        """
        if self._refusal is not None:
            raise self._refusal
        kind = self._kind or self._sniff()
        if kind == "zstd" and (self._in_frame or self._carried or self._skip or not self._kind):
            self._refuse("is not a complete zstd stream")
        if kind == "gzip" and (self._in_member or not self._kind):
            self._refuse("is not a complete gzip stream")
        if self._more:
            self._count(read)

    def _count(self, read: Read) -> None:
        """Set the size to its maximum if that is allowed, else count it."""
        most = self.size + self._more
        if most <= self._limit:
            self.size = most
            return
        try:
            from bundle.format import zstd  # noqa: PLC0415 - ctypes is slow to load
        except ImportError as error:
            raise AirliftError(
                Kind.PYTHON,
                "this Python has no ctypes module, which is needed to count a layer's size",
                where=sys.executable,
                fix="install the distribution's whole python3 (python3-minimal is not enough)",
            ) from error
        self.size = 0
        try:
            self._add(zstd.count(read, self._limit, self._window))
        except ValueError as error:
            self._refuse(f"is no zstd stream: {error}")

    def _take(self, piece: memoryview) -> None:
        if not self._kind:
            self._start += bytes(piece[:_SNIFF])
            if len(self._start) < _SNIFF:
                return
            piece = memoryview(self._start + bytes(piece[_SNIFF:]))
            self._kind = self._sniff()
        if self._kind == "zstd":
            self._walk(piece)
        elif self._kind == "gzip":
            self._gunzip(bytes(piece))
        else:
            self._add(len(piece))

    def _sniff(self) -> str:
        if self._start.startswith(_GZIP):
            return "gzip"
        magic = int.from_bytes(self._start[:4], "little")
        if magic == _ZSTD or magic & ~0xF == _SKIPPABLE:
            return "zstd"
        for magic_bytes, name in _OTHERS.items():
            if self._start.startswith(magic_bytes):
                self._refuse(f"is compressed with {name}, which no layer of an OCI image is")
        return "tar"

    def _walk(self, piece: memoryview) -> None:
        """Read the heads of frames and blocks (RFC 8878), and skip what is between them."""
        if self._carried:  # the beginning of a head at the end of the previous piece
            piece = memoryview(self._carried + bytes(piece))
        at, end = self._skip, len(piece)
        while at < end:
            after = self._block(piece, at) if self._in_frame else self._frame(piece, at)
            if after is None:
                break
            at = after
        self._carried = bytes(piece[at:])
        self._skip = max(at - end, 0)

    def _frame(self, piece: memoryview, at: int) -> int | None:
        """Return the end of a frame's head, or None if the piece ends before it."""
        if at + 8 > len(piece):
            return None
        magic, flags = int.from_bytes(piece[at : at + 4], "little"), piece[at + 4]
        if magic & ~0xF == _SKIPPABLE:
            return at + 8 + int.from_bytes(piece[at + 4 : at + 8], "little")
        if magic != _ZSTD:
            self._refuse("is no zstd stream")
        single = flags >> 5 & 1
        size = (single, 2, 4, 8)[flags >> 6]
        start = at + 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
        if start + size > len(piece):
            return None
        if not single:
            exponent, mantissa = piece[at + 5] >> 3, piece[at + 5] & 7
            self._window = max(self._window, (8 + mantissa) << 7 + exponent)
        if size:
            stated = int.from_bytes(piece[start : start + size], "little")
            stated += 256 if size == 2 else 0
            # An engine would allocate memory for it.
            self._check_fits(stated)
            if single:
                self._window = max(self._window, stated)
        self._in_frame, self._checksum = True, flags & 4
        return start + size

    def _block(self, piece: memoryview, at: int) -> int | None:
        """Return the end of the last block that begins in the piece; None if none does."""
        begin, end = at, len(piece) - 3
        while at <= end:
            block = piece[at] | piece[at + 1] << 8 | piece[at + 2] << 16
            kind, size = block >> 1 & 3, block >> 3
            if kind == 3 or size > _BLOCK:
                self._refuse("is no zstd stream")
            at += 3 + (1 if kind == 1 else size)
            if kind == 2:
                self._more += _BLOCK
            else:
                # A raw block, or one byte repeated, states its exact size.
                self._add(size)
            if block & 1:
                self._in_frame = False
                return at + self._checksum
        return None if at == begin else at

    def _gunzip(self, data: bytes) -> None:
        try:
            while data:
                self._add(len(self._gzip.decompress(data, _PIECE)))
                data = self._gzip.unconsumed_tail
                self._in_member = not self._gzip.eof
                if self._gzip.eof:
                    data = self._gzip.unused_data
                    self._gzip = zlib.decompressobj(wbits=31)
        except zlib.error as error:
            self._refuse(f"is no gzip stream: {error}")

    def _add(self, count: int) -> None:
        self.size += count
        self._check_fits(self.size)

    def _check_fits(self, size: int) -> None:
        if size > self._limit:
            self._refuse(f"unpacks to more than the {self._limit} bytes that its image may have")

    def _refuse(self, what: str) -> NoReturn:
        raise AirliftError(
            Kind.MANIFEST,
            f"the layer {self._path} {what}",
            where="manifest.json, unpacked_size of the image",
            fix="do not use this bundle, even though it is signed; inform the vendor",
        )
