"""The custody log: who had a bundle when, as a chain of entries that lies beside it.

One line of JSON is one entry. Each names the hash of the one before, so an entry that is altered,
removed, moved or put in is seen. That alone stops accidents only: whoever holds the file can write
all of it anew. A signed entry cannot be made by anybody but the key's holder, and it fixes all
entries before it. No chain shows that entries are missing at its end.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain as joined
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from bundle.core import locks
from bundle.core import schema as s
from bundle.core.failures import os_failure
from bundle.core.files import read_file, write_atomic
from bundle.errors import AirliftError, Kind
from bundle.trust import sshsig
from bundle.trust.sshsig import Trust

NAMESPACE = sshsig.CUSTODY
SUFFIX = ".custody"
#: What the first entry has in place of the hash of the one before.
BEGINNING = "0" * 64
MAX_BYTES = 4 << 20
MAX_TEXT = 1000
#: A hostile log has millions of faults; a person reads the first few.
MAX_PROBLEMS = 20
_MAX_PROBLEM = 300
MORE = "... and more"

#: Whoever has the list of those who sign bundles at hand names that one first.
WRONG_LIST = f"check that this is the list of people (namespace {NAMESPACE})"

_HASH = s.text(r"[0-9a-f]{64}")


def _line_of_text(value: object, where: str) -> None:
    """Any language, but nothing that moves a cursor or hides in a terminal."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_TEXT:
        message = f"{where}: must be one line of printable text"
        raise s.ShapeError(message)


_SHAPE = s.record(
    bundle=s.record(
        bytes=s.nullable(s.integer(0)),
        manifest_sha256=s.nullable(_HASH),
        name=_line_of_text,
        parts=s.nullable(s.array(s.nullable(_HASH))),
        sha256=s.nullable(_HASH),
    ),
    done=s.text(r"[a-z]{1,20}"),
    format=s.integer(1, 1),
    host=_line_of_text,
    note=_line_of_text,
    number=s.integer(1, 10**6),
    previous=_HASH,
    result=s.record(kind=s.text(r"[a-z-]{1,40}"), what=_line_of_text),
    sha256=_HASH,
    signature=s.nullable(s.text(r"[\x20-\x7e\n]+", limit=1 << 14)),
    time=s.text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    who=_line_of_text,
)


@dataclass(frozen=True)
class Entry:
    """One line of the log, as `_SHAPE` describes it."""

    data: dict[str, Any]

    @property
    def number(self) -> int:
        """Its place in the log, from 1."""
        return int(self.data["number"])

    @property
    def sha256(self) -> str:
        """The hash that it says it has."""
        return str(self.data["sha256"])

    @property
    def signed_bytes(self) -> bytes:
        """What its signature is made over: all but the signature and the hash."""
        return _encode({k: v for k, v in self.data.items() if k not in {"sha256", "signature"}})

    def sealed(self) -> Entry:
        """The same with the hash that it should have; it covers the signature too."""
        rest = {key: value for key, value in self.data.items() if key != "sha256"}
        return Entry({**rest, "sha256": hashlib.sha256(_encode(rest)).hexdigest()})

    def line(self) -> bytes:
        """The only bytes that say this."""
        return _encode(self.data) + b"\n"


@dataclass(frozen=True)
class Chain:
    """A log as it was read, and everything that is wrong with it, one sentence each."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]

    @property
    def head(self) -> str:
        """The hash of the last entry: written down elsewhere, it fixes the whole log."""
        return self.entries[-1].sha256 if self.entries else BEGINNING


def _encode(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode("ascii")


def parse_line(line: bytes) -> Entry:
    """Read one entry, strictly.

    Raises:
        ValueError: it is not one, or not written as this module writes it.
    """
    data = json.loads(line)
    _SHAPE(data, "")
    datetime.fromisoformat(data["time"])
    entry = Entry(data)
    if entry.line() != line + b"\n":
        message = "it is not written as an entry is"
        raise ValueError(message)
    return entry


def parse(raw: bytes) -> Chain:
    """Read a log and check its chain."""
    lines = raw.split(b"\n")
    torn = lines.pop()
    entries: list[Entry | None] = []
    problems = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(parse_line(line))
        except (ValueError, RecursionError) as error:
            entries.append(None)
            problems.append(f"line {number} was altered, it is not an entry: {error}")
        if len(problems) > MAX_PROBLEMS:
            # What else is wrong with its order is not worth the time.
            return Chain(tuple(filter(None, entries)), first_of(problems))
    if torn:
        place = f"entry {len(lines) + 1}"
        problems.append(f"the log is torn: it ends inside {place}, in writing or in copying")
    found = first_of(joined(problems, _order(entries), _links(entries)))
    return Chain(tuple(filter(None, entries)), found)


def first_of(problems: Iterable[str]) -> tuple[str, ...]:
    """As many as a person reads, none longer than a few lines."""
    found = [_short(problem) for problem in islice(problems, MAX_PROBLEMS + 1)]
    return tuple(found if len(found) <= MAX_PROBLEMS else [*found[:MAX_PROBLEMS], MORE])


def _short(text: str) -> str:
    return text if len(text) <= _MAX_PROBLEM else text[:_MAX_PROBLEM] + "..."


def _order(entries: Sequence[Entry | None]) -> Iterator[str]:
    """Entries that are missing, are there twice, or do not stand in their place."""
    found = [entry.number if entry else None for entry in entries]
    numbers = [
        # A line that cannot be read may be the entry that belongs there.
        place if number is None else number
        for place, number in enumerate(found, 1)
    ]
    counts = Counter(numbers)
    if numbers and max(numbers) <= len(numbers) + 100:
        gone = [n for n in range(1, max(numbers)) if n not in counts]
        yield from (f"entry {number} was removed" for number in gone)
    elif numbers:
        yield f"entries before entry {max(numbers)} were removed"
    for number, count in sorted(counts.items()):
        if count > 1:
            yield f"entry {number} is there {count} times: one was put in"
    for before, after in pairwise(numbers):
        if after < before:
            yield f"entry {after} was moved: it stands after entry {before}"


def _links(entries: Sequence[Entry | None]) -> Iterator[str]:
    """Entries that do not have their own hash, or do not name that of the entry before."""
    for line, entry in enumerate(entries, 1):
        if entry is None:
            continue
        if entry.sealed() != entry:
            # Its number may be what was altered.
            name = f"entry {line}" if entry.number == line else f"line {line}"
            yield f"{name} was altered: it does not have its own SHA-256"
        if entry.number == 1 and entry.data["previous"] != BEGINNING:
            yield "entry 1 was altered: it names an entry before it"
    for before, after in pairwise(entries):
        if before is None or after is None or after.number != before.number + 1:
            continue
        if after.data["previous"] != before.sha256:
            yield (
                f"entry {after.number} follows another entry {before.number} than the one that is "
                "here: one of them was altered or put in"
            )


def check_signatures(chain: Chain, trust: Trust) -> dict[int, str]:
    """Find signatures that do not count, by entry number, with the reason.

    A signature counts if its key belongs to the person whom the entry names, for this purpose, at
    the time that the entry says.
    """
    problems = {}
    asked_for = False
    for entry in chain.entries:
        if entry.data["signature"] is None:
            continue
        asked = trust._replace(
            identities=(entry.data["who"],),
            required=1,
            at=datetime.fromisoformat(entry.data["time"]).timestamp(),
            namespace=NAMESPACE,
        )
        name = f"the signature of entry {entry.number}"
        signatures = [(name, entry.data["signature"].encode())]
        try:
            sshsig.verify(entry.signed_bytes, signatures, asked)
        except AirliftError as error:
            problems[entry.number] = f"{name} does not count: {error.what}"
            if error.kind is Kind.UNKNOWN_SIGNER and not asked_for:
                asked_for = True
                problems[entry.number] += f"; {WRONG_LIST}"
    return problems


def read(path: Path) -> bytes:
    """The log's bytes; nothing if there is none yet."""
    try:
        raw = read_file(path, MAX_BYTES, links=True)
    except FileNotFoundError:
        return b""
    except IsADirectoryError as error:
        raise AirliftError(
            Kind.USAGE,
            "the custody log is a file, this is a directory",
            where=str(path),
            fix=f"name a file: --custody {shlex.quote(str(path / 'airlift.custody'))}",
        ) from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _refusal(path, f"the custody log is longer than {MAX_BYTES} bytes") from error
        raise _refusal(path, f"the custody log cannot be read: {error.strerror}") from error
    return raw


def check_sound(path: Path, raw: bytes) -> Chain:
    """The chain, if it can be continued: what is wrong is not buried under new entries."""
    chain = parse(raw)
    if chain.problems:
        raise _refusal(path, "the custody log cannot be continued: " + "; ".join(chain.problems))
    return chain


def append(path: Path, facts: dict[str, Any], *, key: Path | None, seed: bytes = b"") -> Entry:
    """Add an entry, durably: after a power cut the log has it whole or not at all.

    Args:
        path: the log; made if it is not there.
        facts: `time`, `who`, `host`, `done`, `note`, `result` and `bundle` of the entry.
        key: the person's key, or a `.pub` whose key is in ssh-agent; nothing leaves it unsigned.
        seed: what a log that is not there yet begins with.
    """
    try:
        # One writer at a time. The log itself is replaced, so its folder is what is locked.
        with locks.folder(path.parent):
            raw = read(path) or seed
            chain = check_sound(path, raw)
            entry = Entry(
                {
                    **facts,
                    "format": 1,
                    "number": len(chain.entries) + 1,
                    "previous": chain.head,
                    "signature": None,
                }
            )
            if key is not None:
                signature = sshsig.sign(entry.signed_bytes, key, namespace=NAMESPACE).decode()
                entry = Entry({**entry.data, "signature": signature})
            entry = entry.sealed()
            parse_line(entry.line().rstrip(b"\n"))
            write_atomic(path, raw + entry.line())
    except OSError as error:
        raise os_failure(error, path, Kind.OUTPUT, does="write") from error
    except s.ShapeError as error:
        raise AirliftError(
            Kind.USAGE,
            f"this cannot be written into a custody log: {error}",
            where=str(path),
            fix="names and texts are one line of printable text each",
        ) from error
    return entry


def _refusal(path: Path, what: str) -> AirliftError:
    return AirliftError(
        Kind.CUSTODY,
        what,
        where=str(path),
        fix="compare it with the copy of whoever had the bundle before; keep this one as it is, "
        "and begin another with --custody FILE if the bundle is to go on",
    )


def refuse(path: Path, problems: Sequence[str]) -> None:
    """Raise if anything is wrong with a log."""
    if problems:
        raise _refusal(path, "the custody log is not sound: " + "; ".join(first_of(problems)))
