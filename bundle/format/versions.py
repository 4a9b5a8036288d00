"""The order of versions, as Semantic Versioning 2.0 has it; the only place that compares them."""

from __future__ import annotations

import re

#: Compares as its version does.
Order = tuple[object, ...]

_NUMBER = re.compile("[0-9]+")


def order(version: str) -> Order:
    """Return a key to sort and compare by.

    1.1.0-rc.9 comes before 1.1.0-rc.10, that before 1.1.0, and what follows a plus does not count.
    """
    core, _, before = version.partition("+")[0].partition("-")
    numbers = tuple(_number(part) for part in core.split("."))
    # No pre-release comes after all of them; of two that begin alike the longer one is later.
    return numbers, not before, tuple(_identifier(part) for part in before.split("."))


def _identifier(text: str) -> Order:
    """Numbers by value and before all others; those in the order of ASCII."""
    return (False, *_number(text)) if _NUMBER.fullmatch(text) else (True, text)


def _number(digits: str) -> tuple[int, str]:
    """Return what compares as the number does; Python refuses to read thousands of digits."""
    value = digits.lstrip("0")
    return len(value), value
