"""A bundle in parts: the index beside them, and reading the parts as one file.

The index only tells which part is bad. Whether the bundle is valid depends on its own signed
manifest, in parts as in one piece.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from bundle.core import schema as s
from bundle.core.events import Searching
from bundle.core.files import read_file
from bundle.errors import AirliftError, Kind
from bundle.format import tar

SUFFIX = ".parts"
SIGNATURE_SUFFIX = ".sig"
#: Two digits in a name, so that `cat NAME.part-*` has them in order.
MAX_PARTS = 99
#: The largest file that FAT32 can hold.
FAT_LIMIT = (4 << 30) - 1
_MAX_INDEX = 1 << 16
#: A name that every file system of a USB drive allows, and that programs do not read as an option.
NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}"
#: The problem of a part whose bytes differ from those that `split` wrote.
BAD = "is bad, its SHA-256 is not the one in the index"
_PART = re.compile(rf"({NAME})\.part-\d\d")
BUFFER = 1 << 20

_FILE = {"bytes": s.integer(1), "name": s.text(NAME), "sha256": s.text(r"[0-9a-f]{64}")}
_SHAPE = s.record(
    bundle=s.record(**_FILE),
    format=s.integer(1, 1),
    parts=s.array(s.record(**_FILE)),
)
# Refusals that a bad part can cause. Those of a signature are caused by the first part only.
_CONTENT = (Kind.UNREADABLE, Kind.CUT_SHORT, Kind.ALTERED, Kind.STRUCTURE)
_BEGINNING = (Kind.UNSIGNED, Kind.UNKNOWN_SIGNER, Kind.BAD_SIGNATURE)


class Piece(NamedTuple):
    """A file that the index lists: a part, or the whole bundle."""

    name: str
    size: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Return its entry in the index."""
        return {"bytes": self.size, "name": self.name, "sha256": self.sha256}


class Index(NamedTuple):
    """All parts of a bundle, in order."""

    bundle: Piece
    parts: tuple[Piece, ...]

    @property
    def name(self) -> str:
        """Return the index's own file name."""
        return self.bundle.name + SUFFIX

    def starts(self) -> list[int]:
        """Return where each part begins in the bundle."""
        return [0, *accumulate(part.size for part in self.parts)][:-1]

    def as_dict(self) -> dict[str, Any]:
        """Return the index for `--json`."""
        whole = {"bytes": self.bundle.size, "sha256": self.bundle.sha256}
        return {**whole, "parts": [part.as_dict() for part in self.parts]}

    def encode(self) -> bytes:
        """Return the index's only written form; it has one line per file, so that `sed` works."""
        lines = [f"  {json.dumps(part.as_dict())}" for part in self.parts]
        text = (
            f'{{\n "bundle": {json.dumps(self.bundle.as_dict())},\n "format": 1,\n "parts": [\n'
            + ",\n".join(lines)
            + "\n ]\n}\n"
        )
        return text.encode("ascii")


def part_name(bundle: str, number: int) -> str:
    """Return the file name of a part; the first is number 1."""
    return f"{bundle}.part-{number:02d}"


def index_of(path: Path) -> Path | None:
    """Return the index of a path, if it names an index or a part."""
    if path.name.endswith(SUFFIX):
        return path
    if match := _PART.fullmatch(path.name):
        return path.with_name(match[1] + SUFFIX)
    return None


def signature_of(index: Path) -> Path:
    """Return the path of an index's signature."""
    return index.with_name(index.name + SIGNATURE_SUFFIX)


def read_index(path: Path) -> Index:
    """Read an index strictly: refuse any form but that of `Index.encode`."""
    try:
        raw = read_file(path, _MAX_INDEX, links=True)
        data = json.loads(raw)
        _SHAPE(data, "")
        bundle, *parts = (
            Piece(each["name"], each["bytes"], each["sha256"])
            for each in (data["bundle"], *data["parts"])
        )
        index = Index(bundle, tuple(parts))
        _check(index, raw)
    except OSError as error:
        what = f"cannot read the index of the parts: {error.strerror}"
        raise _bad_index(path, what) from error
    except (ValueError, RecursionError) as error:
        raise _bad_index(path, f"the index of the parts was altered: {error}") from error
    return index


def _check(index: Index, raw: bytes) -> None:
    names = [part_name(index.bundle.name, n) for n in range(1, len(index.parts) + 1)]
    problem = ""
    if [part.name for part in index.parts] != names or not 1 <= len(names) <= MAX_PARTS:
        problem = "its parts are not numbered from 01 on"
    elif sum(part.size for part in index.parts) != index.bundle.size:
        problem = "its parts together have another length than the bundle"
    elif index.encode() != raw:
        problem = "it is not in the form that `split` writes"
    if problem:
        raise ValueError(problem)


def _bad_index(path: Path, what: str) -> AirliftError:
    return AirliftError(
        Kind.PART,
        f"{what}: copy it again",
        where=str(path),
        fix=f"cp FROM/{shlex.quote(path.name)} {shlex.quote(f'{path.parent}/')}"
        "  (FROM: where the parts were made), then run this command again",
    )


def bad_parts(index: Index, folder: Path, problems: Mapping[int, str]) -> AirliftError:
    """Return the error that names each missing or bad part, and the command to copy it again."""
    found = [f"part {n} {what}: copy part {n} again" for n, what in sorted(problems.items())]
    files = " ".join(f"FROM/{index.parts[n - 1].name}" for n in sorted(problems))
    return AirliftError(
        Kind.PART,
        f"of {len(index.parts)} parts, " + "; ".join(found),
        where=str(folder / index.name),
        fix=f"cp {files} {shlex.quote(f'{folder}/')}  (FROM: where the parts were made), "
        "then run this command again; the other parts can stay",
    )


def wrong_size(source: tar.Source, part: Piece) -> str:
    """Return the problem of a part that is incomplete or another file."""
    return f"has {source.size} bytes instead of {part.size}"


class PartsSource(tar.Source):
    """The parts of a bundle, read as one file."""

    whole = False

    def __init__(self, path: Path, index: Index) -> None:
        self.path = path
        self.index = index
        self.size = index.bundle.size
        self._starts = index.starts()
        self._unreadable = False
        problems: dict[int, str] = {}
        with ExitStack() as stack:
            self._parts: list[tar.Source] = []
            for number, part in enumerate(index.parts, 1):
                place = path.with_name(part.name)
                try:
                    source = stack.enter_context(tar.Source(place))
                except AirliftError:
                    exists = os.path.lexists(place)
                    problems[number] = "cannot be opened" if exists else "is missing"
                    continue
                if source.size != part.size:
                    problems[number] = wrong_size(source, part)
                self._parts.append(source)
            if problems:
                raise bad_parts(index, path.parent, problems)
            self._open = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill the view with bytes of one part; return their number, 0 after the last part."""
        if offset >= self.size:
            return 0
        number = bisect_right(self._starts, offset)
        part = self._parts[number - 1]
        start = offset - self._starts[number - 1]
        try:
            return part.readinto(start, view[: part.size - start])
        except AirliftError as error:
            self._unreadable = True
            what = f"part {number} of {len(self._parts)} cannot be read: {error.what}"
            fix = f"{error.fix}, or copy part {number} again"
            raise AirliftError(error.kind, what, where=error.where, fix=fix) from error

    def blame(self, error: AirliftError, searching: Searching) -> AirliftError:
        """Return an error that names the bad parts, if they caused this one."""
        if self._unreadable or error.kind not in (*_CONTENT, *_BEGINNING):
            return error
        chosen = self._parts[:1] if error.kind in _BEGINNING else self._parts
        problems = {}
        progress = searching()
        for number, part in enumerate(chosen, 1):
            try:
                found = sha256_of(part, progress)
            except AirliftError as unreadable:
                problems[number] = f"cannot be read ({unreadable.what})"
                continue
            if found != self.index.parts[number - 1].sha256:
                problems[number] = BAD
        if problems:
            return bad_parts(self.index, self.path.parent, problems)
        if error.kind in _BEGINNING:
            return error
        fix = "have the bundle split again; copying does not help, for each part fits the index"
        return AirliftError(error.kind, error.what, where=error.where, fix=fix)


def open_source(path: Path) -> tar.Source:
    """Open a bundle: the file itself, or its parts by their index or by any one of them."""
    index = index_of(path)
    if index is not None:
        return PartsSource(index, read_index(index))
    beside = path.with_name(path.name + SUFFIX)
    if not path.exists() and beside.exists():
        raise AirliftError(
            Kind.UNREADABLE,
            "the bundle is in parts",
            where=str(path),
            fix=f"name {beside} instead, or join the parts first",
        )
    return tar.Source(path)


def pieces(source: tar.Source, start: int, size: int) -> Iterable[memoryview]:
    """Yield a section of a source, in pieces; each is valid until the next one."""
    buffer = memoryview(bytearray(BUFFER))
    end = start + size
    while start < end:
        count = source.readinto(start, buffer[: min(end - start, BUFFER)])
        if count == 0:
            return
        yield buffer[:count]
        start += count


def sha256_of(source: tar.Source, progress: Callable[[int], None] | None = None) -> str:
    """Return the hash of a whole source."""
    digest = hashlib.sha256()
    for piece in pieces(source, 0, source.size):
        digest.update(piece)
        if progress is not None:
            progress(len(piece))
    return digest.hexdigest()
