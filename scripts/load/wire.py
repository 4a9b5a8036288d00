"""Reads HTTP/1.1 answers from bytes as they arrive."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEAD_LIMIT = 65536
_STATUS = re.compile(r"HTTP/1\.([01]) (\d{3})(?: .*)?")
_TIMEOUT = re.compile(r"timeout\s*=\s*(\d+)", re.IGNORECASE)


class AnswerError(Exception):
    """No answer, an incomplete one, or malformed bytes."""


@dataclass
class Answer:
    """One answer.

    Attributes:
        status: Its status code.
        headers: By lower-case name; of a repeated one, the last.
        body: Decoded from chunks, if it came in such.
        keep: Whether the connection may carry another request.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    keep: bool

    @property
    def keep_seconds(self) -> float | None:
        """Seconds for which the server promises to keep the idle connection, None if it is silent.

        It is what ``Keep-Alive: timeout=N`` says.
        """
        found = _TIMEOUT.search(self.headers.get("keep-alive", ""))
        return float(found[1]) if found else None


class Parser:
    """Reads one answer to a request that is not HEAD."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._answer: Answer | None = None
        self._length: int | None = None
        self._chunked = False
        self.received = 0

    def feed(self, data: bytes) -> Answer | None:
        """Read bytes; return the answer when it is complete.

        Raises:
            AnswerError: They are no HTTP/1.1 answer.
        """
        self._data += data
        self.received += len(data)
        while self._answer is None:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                if len(self._data) > _HEAD_LIMIT:
                    raise AnswerError("the head of the answer has no end")
                return None
            head = self._data[:end].decode("latin-1")
            del self._data[: end + 4]
            self._read_head(head)
        return self._finish(self._answer)

    def end(self) -> Answer | None:
        """Handle the end of the connection; return the answer if that is its end."""
        if self._answer is None or self._chunked or self._length is not None:
            return None
        self._answer.body = bytes(self._data)
        self._answer.keep = False
        return self._answer

    def _read_head(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        found = _STATUS.fullmatch(first)
        if found is None:
            raise AnswerError(f"not an HTTP/1.1 answer: {first[:80]!r}")
        status = int(found[2])
        if status < 200:  # an interim answer; the real one follows
            return
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        tokens = {word.strip().lower() for word in headers.get("connection", "").split(",")}
        keep = "close" not in tokens and (found[1] == "1" or "keep-alive" in tokens)
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if status in (204, 304):
            self._length = 0
        elif not self._chunked and "content-length" in headers:
            try:
                self._length = int(headers["content-length"])
            except ValueError as error:
                raise AnswerError("the answer's Content-Length is no number") from error
        self._answer = Answer(status, headers, b"", keep)

    def _finish(self, answer: Answer) -> Answer | None:
        if self._chunked:
            found = _unchunk(self._data)
            if found is None:
                return None
            answer.body, used = found
        elif self._length is not None:
            if len(self._data) < self._length:
                return None
            answer.body, used = bytes(self._data[: self._length]), self._length
        else:
            return None
        # No request belongs to bytes after the answer.
        answer.keep = answer.keep and used == len(self._data)
        return answer


def _unchunk(data: bytearray) -> tuple[bytes, int] | None:
    """Return a chunked body and its length in bytes, None while it is incomplete."""
    body, at = bytearray(), 0
    while (end := data.find(b"\r\n", at)) >= 0:
        try:
            length = int(data[at:end].partition(b";")[0], 16)
        except ValueError as error:
            raise AnswerError("a chunk of the answer has no length") from error
        if length == 0:
            # Trailers, if any, end with an empty line like the head does.
            last = data.find(b"\r\n\r\n", end)
            return None if last < 0 else (bytes(body), last + 4)
        if len(data) < end + 2 + length + 2:
            return None
        body += data[end + 2 : end + 2 + length]
        at = end + 2 + length + 2
    return None
