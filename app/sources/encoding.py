"""Whether a source's bytes are UTF-8, told from one that has a damaged place."""

from __future__ import annotations

import codecs


class Utf8Watch:
    """Looks at a source's bytes as they pass.

    A source whose first character beyond ASCII is no UTF-8 is one of another encoding, and every
    such character in it is wrong. One that has had good ones before is UTF-8 with a damaged place.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._looking = True
        self._offset = 0
        self._line = 1
        #: What is wrong, once it is: the encoding it looks like, the line and the byte.
        self.foreign: str | None = None

    def stop(self) -> None:
        """All of it is in another encoding, and known to be."""
        self._looking, self.foreign = False, None

    def feed(self, data: bytes) -> None:
        """The next bytes; none of them at the end."""
        if not self._looking:
            return
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            self._looking = False
            # The decoder keeps the beginning of a character that was cut.
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
