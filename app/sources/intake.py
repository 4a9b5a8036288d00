"""A source's bytes as they come: counted, hashed and never more than a job may bring in."""

from __future__ import annotations

import codecs
import hashlib
import io
from typing import IO, Any

from app.sources.base import RefusedSourceError
from app.sources.encoding import Utf8Watch

_CHUNK = 65_536


class Intake(io.RawIOBase):
    """Reads another stream through; fails once there are more than `max_bytes`."""

    def __init__(self, stream: IO[bytes], max_bytes: int, origin: dict[str, Any]) -> None:
        super().__init__()
        self._stream = stream
        self._max = max_bytes
        self._origin = origin
        self._hash = hashlib.sha256()
        self._watch = Utf8Watch()
        self.count = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, as a raw stream does; 0 at the end."""
        data = self._stream.read(len(buffer))
        self.count += len(data)
        if self.count > self._max:
            raise RefusedSourceError(
                "source-too-large", f"the source has more than {self._max} bytes"
            )
        self._hash.update(data)
        self._watch.feed(data)
        buffer[: len(data)] = data
        if not data:
            self._origin.update(bytes=self.count, sha256=self._hash.hexdigest())
        return len(data)

    def foreign(self) -> str | None:
        """What is wrong with the encoding of what was read, if all of it is in another one."""
        return self._watch.foreign

    def text(self) -> io.TextIOWrapper:
        """The bytes as UTF-8, with or without a byte-order mark, or as UTF-16 with one.

        A byte that is no UTF-8 becomes a lone surrogate, so that it spoils its own record and not
        the whole source. Whether the whole is in another encoding, `foreign` says.
        """
        buffered = io.BufferedReader(self, _CHUNK)
        if buffered.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            self._watch.stop()
            # Excel's "Unicode text". Halves of surrogate pairs stay, and spoil their own record.
            return io.TextIOWrapper(buffered, "utf-16", errors="surrogatepass", newline="")
        return io.TextIOWrapper(
            buffered, encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
