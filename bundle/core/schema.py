"""A very small strict schema: all keys are known, all values checked, errors name the place."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

Check = Callable[[object, str], None]


class ShapeError(ValueError):
    """A value does not fit the schema; the text names its place."""


def record(**fields: Check) -> Check:
    """Return a check for an object with exactly these keys."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, dict):
            _fail(where, "must be an object")
        if value.keys() != fields.keys():
            if unknown := sorted(set(value) - set(fields)):
                _fail(where, f"has the unknown key {unknown[0]!r}")
            _fail(where, f"lacks the key {min(set(fields) - set(value))!r}")
        for key, field in fields.items():
            field(value[key], f"{where}.{key}" if where else key)

    return check


def mapping(names: str, values: Check) -> Check:
    """Return a check for an object with free keys of one form."""
    pattern = re.compile(names)

    def check(value: object, where: str) -> None:
        if not isinstance(value, dict):
            _fail(where, "must be an object")
        for key, item in value.items():
            if not pattern.fullmatch(key):
                _fail(where, f"has the key {key!r}, which is not a valid name")
            values(item, f"{where}.{key}")

    return check


def array(items: Check) -> Check:
    """Return a check for a list of items of one form."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, list):
            _fail(where, "must be a list")
        for index, item in enumerate(value):
            items(item, f"{where}[{index}]")

    return check


def text(pattern: str = r"[\x20-\x7e]+", *, limit: int = 4096) -> Check:
    """Return a check for a text that matches the whole pattern: by default, printable ASCII."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: object, where: str) -> None:
        if not isinstance(value, str):
            _fail(where, "must be a text")
        if len(value) > limit or not compiled.fullmatch(value):
            _fail(where, f"{value[:80]!r} is not allowed there")

    return check


def integer(low: int, high: int | None = None) -> Check:
    """Return a check for a whole number within bounds; true and 1.0 are refused."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            _fail(where, "must be a whole number")
        if value < low or (high is not None and value > high):
            _fail(where, f"{value} is out of bounds")

    return check


def boolean() -> Check:
    """Return a check for true or false."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, bool):
            _fail(where, "must be true or false")

    return check


def nullable(inner: Check) -> Check:
    """Return a check for null, or for the inner check."""

    def check(value: object, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def _fail(where: str, message: str) -> NoReturn:
    raise ShapeError(f"{where}: {message}" if where else message)
