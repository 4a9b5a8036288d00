"""Rows of the fuzz table: a parser of foreign bytes, its allowed refusals and its rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pytest

from bundle.errors import AirliftError, Kind
from tests.fuzz.mutate import Form
from tests.unit.bundle.bundlekit import Keys


class Case(NamedTuple):
    """Seed inputs, made by the product's own writers, and the check of one input.

    `check` gives an input to the parser. It raises the parser's refusal, or AssertionError when an
    accepted input breaks a rule.
    """

    seeds: Sequence[bytes]
    check: Callable[[bytes], None]


@dataclass(frozen=True)
class Kit:
    """What a case is built with: a folder for files that parsers open, and signing keys."""

    folder: Path
    #: Patches and clean-up that end with the case.
    patch: pytest.MonkeyPatch
    later: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def keys(self) -> Keys:
        """Return keys, generated at first use."""
        folder = self.folder / "keys"
        folder.mkdir(exist_ok=True)
        return Keys(folder)

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return an event loop that is closed with the case."""
        made = asyncio.new_event_loop()
        self.later.callback(made.close)
        return made

    def file(self, name: str, data: bytes) -> Path:
        """Write a file in place: a rename for each of a million inputs would take too long."""
        path = self.folder / name
        path.write_bytes(data)
        return path


@dataclass(frozen=True)
class Parser:
    """One row of the table."""

    name: str
    #: The function under test.
    entry: str
    #: Source files that read foreign bytes and are covered by this row.
    modules: tuple[str, ...]
    form: Form
    #: The only exceptions that the parser may raise.
    refusals: tuple[type[BaseException], ...]
    #: The kinds of Airlift's own errors that it may raise.
    kinds: tuple[Kind, ...]
    make: Callable[[Kit], Case]
    #: Whether each input starts programs or opens sockets: the unit tests then try fewer.
    slow: bool = False


#: All rows by name; `tests.fuzz.table` fills it.
PARSERS: dict[str, Parser] = {}


def fuzzed(
    name: str,
    entry: str,
    *modules: str,
    form: Form,
    refusals: Sequence[type[BaseException]] = (AirliftError,),
    kinds: Sequence[Kind] = (),
    slow: bool = False,
) -> Callable[[Callable[[Kit], Case]], Callable[[Kit], Case]]:
    """Return a decorator that adds a parser to the table."""

    def add(make: Callable[[Kit], Case]) -> Callable[[Kit], Case]:
        assert name not in PARSERS, name
        PARSERS[name] = Parser(
            name, entry, modules, form, tuple(refusals), tuple(kinds), make, slow
        )
        return make

    return add


def accepted(parser: Parser, check: Callable[[bytes], None], data: bytes) -> bool:
    """Return whether the parser accepts an input; raise on anything but a refusal in words."""
    error: BaseException | None = None
    try:
        check(data)
    except parser.refusals as caught:
        error = caught
    if isinstance(error, AirliftError):
        assert_in_words(error, parser.kinds)
    return error is None


def assert_in_words(error: AirliftError, kinds: Sequence[Kind]) -> None:
    """Check a refusal: an allowed kind, one line of printable text, and a fix."""
    assert error.kind in kinds, error
    assert error.what.isprintable(), error.what
    assert error.fix
    json.dumps(error.as_dict()).encode("ascii")
