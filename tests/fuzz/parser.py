"""A parser of bytes that somebody else wrote: where it is, what may come of it, what must hold."""

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
    """What is tried: inputs that the product's own writers made, and the parser with its rules.

    `check` gives an input to the parser. It raises the parser's refusal, or AssertionError when an
    accepted input breaks a rule.
    """

    seeds: Sequence[bytes]
    check: Callable[[bytes], None]


@dataclass(frozen=True)
class Kit:
    """What a case is made with: a folder for files that parsers open, and keys to sign with."""

    folder: Path
    #: For what must not outlive the case.
    patch: pytest.MonkeyPatch
    later: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def keys(self) -> Keys:
        """Keys, made when something has to be signed."""
        folder = self.folder / "keys"
        folder.mkdir(exist_ok=True)
        return Keys(folder)

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return an event loop for the case."""
        made = asyncio.new_event_loop()
        self.later.callback(made.close)
        return made

    def file(self, name: str, data: bytes) -> Path:
        """Write a file, in place: a rename for each of a million inputs is what takes the time."""
        path = self.folder / name
        path.write_bytes(data)
        return path


@dataclass(frozen=True)
class Parser:
    """One row of the table."""

    name: str
    #: The function that is called.
    entry: str
    #: Source files that read foreign bytes, which this row tries.
    modules: tuple[str, ...]
    form: Form
    #: The only exceptions that may come of it.
    refusals: tuple[type[BaseException], ...]
    #: Of Airlift's own errors, the kinds.
    kinds: tuple[Kind, ...]
    make: Callable[[Kit], Case]
    #: Whether each input costs programs or sockets: fewer are tried in the unit tests.
    slow: bool = False


#: Every row, by its name; `tests.fuzz.table` fills it.
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
    """Put a parser into the table."""

    def add(make: Callable[[Kit], Case]) -> Callable[[Kit], Case]:
        assert name not in PARSERS, name
        PARSERS[name] = Parser(
            name, entry, modules, form, tuple(refusals), tuple(kinds), make, slow
        )
        return make

    return add


def accepted(parser: Parser, check: Callable[[bytes], None], data: bytes) -> bool:
    """Whether the parser takes an input; anything but that or a refusal in words is raised."""
    error: BaseException | None = None
    try:
        check(data)
    except parser.refusals as caught:
        error = caught
    if isinstance(error, AirliftError):
        assert_in_words(error, parser.kinds)
    return error is None


def assert_in_words(error: AirliftError, kinds: Sequence[Kind]) -> None:
    """A refusal is of these kinds, in one line of printable words, and says what to do."""
    assert error.kind in kinds, error
    assert error.what.isprintable(), error.what
    assert error.fix
    json.dumps(error.as_dict()).encode("ascii")
