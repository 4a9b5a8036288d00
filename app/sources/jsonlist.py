"""Read the entries of a list in a JSON document one at a time, in constant memory.

This module looks only at brackets and quotes, to find the end of an entry; `json` parses the entry.
An entry that is invalid, too large or too deeply nested is therefore skipped alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TextIO

_CHUNK = 65_536
_SPACE = re.compile(r"[ \t\r\n]*")
# Characters that can end a value; characters that matter in brackets (complete strings, or the
# start of a string that continues in the next part); and those that matter inside such a string.
_OUTSIDE = re.compile(r'["\[\]{},:]')
_NESTED = re.compile(r'"(?:[^"\\]|\\.)*+"|["\[\]{}]', re.DOTALL)
_INSIDE = re.compile(r'\\.|"', re.DOTALL)

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 64
# No sensible document is this deep: stop reading it.
_HOPELESS = 10_000


class BrokenJsonError(ValueError):
    """The document is not valid JSON; the message is for readers."""


class NoListError(ValueError):
    """The value at the path is not a list."""


class NoPathError(ValueError):
    """The path does not exist in the document."""


class JsonList:
    """A reader of one document; it raises `BrokenJsonError` for invalid JSON."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._buffer = ""
        self._at = 0

    def entries(self, path: list[str] | None) -> Iterator[str | None]:
        """Yield the text of each entry, or None for one that is too large or too deep.

        `path` holds the names of the objects around the list; None finds the list by default: the
        document itself, or its member `records`.
        """
        opened = self._enter(path if path is not None else self._usual())
        if self._peek() != "[":
            raise NoListError
        self._take("[")
        if self._peek() != "]":
            yield self._value()
            while self._peek() == ",":
                self._take(",")
                yield self._value()
        self._take("]")
        for _ in range(opened):
            self._leave()
        if self._peek():
            msg = "something follows the document"
            raise BrokenJsonError(msg)

    def _usual(self) -> list[str]:
        return ["records"] if self._peek() == "{" else []

    def _enter(self, path: list[str]) -> int:
        for name in path:
            if self._peek() != "{":
                raise NoPathError
            self._take("{")
            while True:
                if self._peek() == "}":
                    raise NoPathError
                key = self._key()
                if key == name:
                    break
                self._value()
                if self._peek() == ",":
                    self._take(",")
        return len(path)

    def _leave(self) -> None:
        while self._peek() == ",":
            self._take(",")
            self._key()
            self._value()
        self._take("}")

    def _key(self) -> object:
        text = self._value()
        self._take(":")
        return None if text is None else json.loads(text)

    def _more(self) -> bool:
        part = self._text.read(_CHUNK)
        self._buffer = self._buffer[self._at :] + part
        self._at = 0
        return bool(part)

    def _peek(self) -> str:
        """Return the next character that is not white space, or an empty string at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def _take(self, character: str) -> None:
        if self._peek() != character:
            msg = f"{character!r} is missing"
            raise BrokenJsonError(msg)
        self._at += 1

    def _value(self) -> str | None:
        """Consume the next value and return its text, or None if it is too large or too deep."""
        end = _End()
        kept: list[str] = []
        size = 0
        self._peek()
        while True:
            start = self._at
            self._at = end.find(self._buffer, start)
            size += self._at - start
            if size <= MAX_CHARACTERS:
                kept.append(self._buffer[start : self._at])
            else:
                kept.clear()
            if end.found:
                break
            if not self._more():
                msg = "the document ends too early"
                raise BrokenJsonError(msg)
        return None if size > MAX_CHARACTERS or end.deepest > MAX_DEPTH else "".join(kept)


class _End:
    """Finds the end of a value; keeps its state between parts of the document."""

    def __init__(self) -> None:
        self.found = False
        self.deepest = 0
        self._depth = 0
        self._quoted = False

    def find(self, text: str, at: int) -> int:
        """Return the index up to which `text` belongs to the value; `found` is set at its end."""
        while at < len(text):
            if self._quoted:
                at = self._string(text, at)
            elif self._depth:
                at = self._nested(text, at)
            else:
                at = self._outside(text, at)
            if self.found or (self._quoted and text.endswith("\\") and at == len(text) - 1):
                break  # the end, or half of an escape sequence
        return at

    def _outside(self, text: str, at: int) -> int:
        match = _OUTSIDE.search(text, at)
        if match is None:
            return len(text)
        mark = match[0]
        if mark == '"':
            self._quoted = True
        elif mark in "[{":
            self._depth = 1
            self.deepest = max(self.deepest, 1)
        else:
            # The character that ends a bare number or word belongs to the enclosing value.
            self.found = True
            return match.start()
        return match.end()

    def _nested(self, text: str, at: int) -> int:
        depth = self._depth
        for match in _NESTED.finditer(text, at):
            mark = match[0]
            if mark in "]}":
                depth -= 1
                if depth == 0:
                    self._depth, self.found = 0, True
                    return match.end()
            elif mark in "[{":
                depth += 1
                if depth > self.deepest:
                    self.deepest = depth
                    if depth > _HOPELESS:
                        msg = "nested too deeply"
                        raise BrokenJsonError(msg)
            elif mark == '"':
                self._depth, self._quoted = depth, True
                return match.end()
        self._depth = depth
        return len(text)

    def _string(self, text: str, at: int) -> int:
        for match in _INSIDE.finditer(text, at):
            if match[0] == '"':
                self._quoted = False
                self.found = self._depth == 0
                return match.end()
            at = match.end()
        return len(text) - 1 if text.endswith("\\") and at < len(text) else len(text)
