"""The order of versions by Semantic Versioning 2.0; no other module compares versions."""

from __future__ import annotations

import re

#: Compares as its version does.
Order = tuple[object, ...]

_NUMBER = re.compile("[0-9]+")


def order(version: str) -> Order:
    """Return a key to sort and compare by.

    1.1.0-rc.9 comes before 1.1.0-rc.10, which comes before 1.1.0. A part after a plus is ignored.
    """
    core, _, before = version.partition("+")[0].partition("-")
    numbers = tuple(_number(part) for part in core.split("."))
    # A release comes after its pre-releases. Of two that begin alike, the longer one is later.
    return numbers, not before, tuple(_identifier(part) for part in before.split("."))


def _identifier(text: str) -> Order:
    """Return a key that sorts numbers first, by value, and other texts after them, by ASCII."""
    return (False, *_number(text)) if _NUMBER.fullmatch(text) else (True, text)


def _number(digits: str) -> tuple[int, str]:
    """Return a key that compares as the number; Python refuses to read thousands of digits."""
    value = digits.lstrip("0")
    return len(value), value
