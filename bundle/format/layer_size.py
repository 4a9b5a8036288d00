"""How large a layer gets when an engine unpacks it, counted while its bytes pass: no bomb travels.

An engine looks at a layer's first bytes, not at its media type, and so does this. gzip says too
little, so it is unpacked, a bounded piece at a time. Of zstd the blocks are walked: each has a most
that it can give. Only where all of them together could be too much is the stream unpacked, once its
hash was compared, and what comes out is counted. What a frame's head says is never believed; it can
only refuse the layer.
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
# Docker would unpack these, too; no layer of an OCI image is compressed so.
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_SNIFF = 6
_PIECE = 1 << 20
# RFC 8878: no block is unpacked to more than this.
_BLOCK = 128 << 10


class Unpacked:
    """Counts one layer until it is larger than its image may be, or no layer at all.

    That is not said before `check`: first the layer's hash must show that it is what was signed.
    """

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._refusal: AirliftError | None = None
        #: Bytes of the layer as a tar file, so far; of zstd those that are sure, until `check`.
        self.size = 0
        # What zstd blocks can give beside them.
        self._more = 0
        self._start = b""
        self._kind = ""
        self._gzip = zlib.decompressobj(wbits=31)
        self._in_member = False
        # Of a zstd stream: where in it the next piece begins.
        self._carried = b""
        self._skip = 0
        self._in_frame = False
        self._checksum = 0

    def feed(self, piece: memoryview) -> None:
        """Take the next bytes of the layer; after a reason to refuse it they do not matter."""
        if self._refusal is None:
            try:
                self._take(piece)
            except AirliftError as error:
                self._refusal = error

    def check(self, read: Read) -> None:
        """Refuse the layer if there was a reason, or if its stream did not end.

        `read` gives the layer again, whose hash is known to be right.
        """
        if self._refusal is not None:
            raise self._refusal
        kind = self._kind or self._sniff()
        if kind == "zstd" and (self._in_frame or self._carried or self._skip or not self._kind):
            self._refuse("is no whole zstd stream")
        if kind == "gzip" and (self._in_member or not self._kind):
            self._refuse("is no whole gzip stream")
        if self._more:
            self._count(read)

    def _count(self, read: Read) -> None:
        """Let the size be what it is; or what it is at most, if even that is allowed."""
        most = self.size + self._more
        if most <= self._limit:
            self.size = most
            return
        try:
            from bundle.format import zstd  # noqa: PLC0415 - ctypes is slow to load
        except ImportError as error:
            raise AirliftError(
                Kind.PYTHON,
                "this Python has no ctypes module, by which the size of a layer is counted",
                where=sys.executable,
                fix="install the distribution's whole python3 (python3-minimal is not enough)",
            ) from error
        self.size = 0
        try:
            self._add(zstd.count(read, self._limit))
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
        """Go from head to head of frames and blocks (RFC 8878); what is between is passed over."""
        if self._carried:  # the beginning of a head at the end of the piece before
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
        """What follows the head of a frame, or nothing if the piece ends before it does."""
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
        if size:
            said = int.from_bytes(piece[start : start + size], "little")
            # An engine would make room for it.
            self._check_fits(said + 256 if size == 2 else said)
        self._in_frame, self._checksum = True, flags & 4
        return start + size

    def _block(self, piece: memoryview, at: int) -> int | None:
        """The end of as many blocks of a frame as begin in the piece; nothing if none does."""
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
                # What is not compressed, or one byte again and again, says its size.
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
            fix="do not use this bundle, though it is signed; tell the vendor",
        )
