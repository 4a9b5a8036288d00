"""Count, hash and limit the bytes of a source while they are read."""

from __future__ import annotations

import codecs
import hashlib
import io
from typing import IO, Any

from app.sources.base import RefusedSourceError
from app.sources.encoding import Utf8Watch

_CHUNK = 65_536


class Intake(io.RawIOBase):
    """Wraps a stream; raises an error after more than `max_bytes`."""

    def __init__(self, stream: IO[bytes], max_bytes: int, origin: dict[str, Any]) -> None:
        super().__init__()
        self._stream = stream
        self._max = max_bytes
        self._origin = origin
        self._hash = hashlib.sha256()
        self._watch = Utf8Watch()
        self.count = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` and return the number of bytes; 0 at the end."""
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
        """Return an error message if all that was read is in another encoding, else None."""
        return self._watch.foreign

    def text(self) -> io.TextIOWrapper:
        """Return the bytes as text: UTF-8 with or without a byte-order mark, or UTF-16 with one.

        An invalid byte becomes a lone surrogate, so that only its own record is rejected. `foreign`
        reports whether the whole source is in another encoding.
        """
        buffered = io.BufferedReader(self, _CHUNK)
        if buffered.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            self._watch.stop()
            # UTF-16 is Excel's "Unicode text". Lone surrogates stay and reject only their own
            # record.
            return io.TextIOWrapper(buffered, "utf-16", errors="surrogatepass", newline="")
        return io.TextIOWrapper(
            buffered, encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
