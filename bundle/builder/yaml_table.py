"""A mapping of a hand-written YAML file that checks its values; errors name file and key.

It differs from `core.schema`, which knows one form for each document: here a key may be optional,
one key may decide which others are allowed, and an error lists the keys that are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from bundle.builder.problems import Problem

_T = TypeVar("_T", int, str)


class Table:
    """A mapping that knows its place in the file, for messages."""

    def __init__(self, path: Path, place: str, value: object) -> None:
        self._path, self._place = path, place
        if not isinstance(value, dict):
            raise Problem(f"{path}: {place or 'the file'} must be a mapping")
        self._value: dict[str, Any] = value

    def names(self) -> list[str]:
        """Return its keys."""
        return list(self._value)

    def has(self, name: str) -> bool:
        """Return whether a key exists."""
        return name in self._value

    def wrong(self, name: str, message: str) -> Problem:
        """Return the error about a key."""
        return Problem(f"{self._path}: {self._at(name)}: {message}")

    def only(self, *known: str) -> None:
        """Refuse unknown keys, which are misspelt."""
        for name in self._value:
            if name not in known:
                raise self.wrong(str(name), f"not a known key; known: {', '.join(known)}")

    def table(self, name: str) -> Table:
        """Return an inner mapping."""
        if name not in self._value:
            raise self.wrong(name, "is missing")
        return Table(self._path, self._at(name), self._value[name])

    def get(self, name: str, kind: type[_T]) -> _T:
        """Return a number, or a text that is not empty."""
        value = self._value.get(name)
        if not isinstance(value, kind) or value == "":
            raise self.wrong(name, f"must be {'a number' if kind is int else 'a text'}")
        return value

    def match(self, name: str, pattern: re.Pattern[str]) -> str:
        """Return a text that matches a pattern."""
        value = str(self._value.get(name, ""))
        if not pattern.fullmatch(value):
            raise self.wrong(name, f"{value!r} is not of the form {pattern.pattern}")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self._value.get(name)
        if not isinstance(value, bool):
            raise self.wrong(name, "must be true or false")
        return value

    def tables(self, name: str) -> list[Table]:
        """Return a list of mappings, not empty."""
        value = self._value.get(name)
        if not isinstance(value, list) or not value:
            raise self.wrong(name, "must be a list, not empty")
        place = self._at(name)
        return [Table(self._path, f"{place}[{n}]", one) for n, one in enumerate(value)]

    def strings(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, not empty."""
        value = self._value.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
            raise self.wrong(name, "must be a list of texts, not empty")
        return tuple(value)

    def _at(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name
