"""Distinguish a source in another encoding from UTF-8 with a damaged character."""

from __future__ import annotations

import codecs


class Utf8Watch:
    """Checks the bytes of a source as they are read.

    If the first non-ASCII character is not valid UTF-8, the source is in another encoding and all
    such characters are wrong. If valid ones came before, the source is UTF-8 with a damaged
    character.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._looking = True
        self._offset = 0
        self._line = 1
        #: The error message once it is known: likely encoding, line and byte.
        self.foreign: str | None = None

    def stop(self) -> None:
        """Stop checking: the source is known to be in another encoding."""
        self._looking, self.foreign = False, None

    def feed(self, data: bytes) -> None:
        """Check the next bytes; empty bytes mark the end."""
        if not self._looking:
            return
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            self._looking = False
            # The decoder keeps the start of a character that continues in the next block.
            good = error.object[: error.start]
            if good.isascii():
                offset = self._offset + error.start - (len(error.object) - len(data))
                line = self._line + good.count(b"\n")
                self.foreign = _sentence(line, offset, error.object[error.start])
            return
        self._looking = text.isascii()
        self._offset += len(data)
        self._line += data.count(b"\n")


def _sentence(line: int, offset: int, byte: int) -> str:
    where = f"line {line} is not UTF-8"
    try:
        character = bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        kind = f": byte 0x{byte:02X} at offset {offset}"
    else:
        kind = (
            f", it looks like Windows-1252: byte 0x{byte:02X} at offset {offset} "
            f"would be {character!r}"
        )
    return f"{where}{kind}; save it as UTF-8 (in Excel: CSV UTF-8)"
