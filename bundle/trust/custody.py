"""The custody log: a chain of entries beside a bundle that records who had it when.

One line of JSON is one entry. Each has the hash of the previous entry, so that an altered, removed,
moved or inserted entry is detected. The chain alone finds accidents only: a person with the file
can write all of it again. Only the holder of a key can make a signed entry, which fixes all entries
before it. No chain shows that entries are missing at its end.
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
#: What the first entry has in place of the hash of its previous entry.
BEGINNING = "0" * 64
MAX_BYTES = 4 << 20
MAX_TEXT = 1000
#: A hostile log may have millions of faults; only the first few are reported.
MAX_PROBLEMS = 20
_MAX_PROBLEM = 300
MORE = "... and more"

#: A likely mistake is to name the list of those who sign bundles.
WRONG_LIST = f"check that this is the list of people (namespace {NAMESPACE})"

_HASH = s.text(r"[0-9a-f]{64}")


def _line_of_text(value: object, where: str) -> None:
    """Accept text of any language, but nothing that moves a cursor or hides in a terminal."""
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
        """Return its place in the log, from 1."""
        return int(self.data["number"])

    @property
    def sha256(self) -> str:
        """Return the hash that the entry states."""
        return str(self.data["sha256"])

    @property
    def signed_bytes(self) -> bytes:
        """Return what is signed: all but the signature and the hash."""
        return _encode({k: v for k, v in self.data.items() if k not in {"sha256", "signature"}})

    def sealed(self) -> Entry:
        """Return the entry with its correct hash, which covers the signature as well."""
        rest = {key: value for key, value in self.data.items() if key != "sha256"}
        return Entry({**rest, "sha256": hashlib.sha256(_encode(rest)).hexdigest()})

    def line(self) -> bytes:
        """Return the only form in which this entry may be written."""
        return _encode(self.data) + b"\n"


@dataclass(frozen=True)
class Chain:
    """A log as it was read, with its problems, one sentence each."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]

    @property
    def head(self) -> str:
        """Return the hash of the last entry; recorded elsewhere, it fixes the whole log."""
        return self.entries[-1].sha256 if self.entries else BEGINNING


def _encode(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode("ascii")


def parse_line(line: bytes) -> Entry:
    """Read one entry, strictly.

    Raises:
        ValueError: it is not an entry in the form that this module writes.
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
            # Checking the order as well would only cost time.
            return Chain(tuple(filter(None, entries)), first_of(problems))
    if torn:
        place = f"entry {len(lines) + 1}"
        problems.append(f"the log is torn: it ends inside {place}; a write or copy was interrupted")
    found = first_of(joined(problems, _order(entries), _links(entries)))
    return Chain(tuple(filter(None, entries)), found)


def first_of(problems: Iterable[str]) -> tuple[str, ...]:
    """Return the first problems, each shortened to a few lines."""
    found = [_short(problem) for problem in islice(problems, MAX_PROBLEMS + 1)]
    return tuple(found if len(found) <= MAX_PROBLEMS else [*found[:MAX_PROBLEMS], MORE])


def _short(text: str) -> str:
    return text if len(text) <= _MAX_PROBLEM else text[:_MAX_PROBLEM] + "..."


def _order(entries: Sequence[Entry | None]) -> Iterator[str]:
    """Yield the problems of entries that are missing, doubled, or not in their place."""
    found = [entry.number if entry else None for entry in entries]
    numbers = [
        # A line that cannot be read may be the expected entry, so it is not missing.
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
            yield f"entry {number} is there {count} times: one was inserted"
    for before, after in pairwise(numbers):
        if after < before:
            yield f"entry {after} was moved: it is after entry {before}"


def _links(entries: Sequence[Entry | None]) -> Iterator[str]:
    """Yield the problems of entries whose own hash, or previous hash, is wrong."""
    for line, entry in enumerate(entries, 1):
        if entry is None:
            continue
        if entry.sealed() != entry:
            # Its number may have been altered.
            name = f"entry {line}" if entry.number == line else f"line {line}"
            yield f"{name} was altered: its SHA-256 is wrong"
        if entry.number == 1 and entry.data["previous"] != BEGINNING:
            yield "entry 1 was altered: it names an entry before it"
    for before, after in pairwise(entries):
        if before is None or after is None or after.number != before.number + 1:
            continue
        if after.data["previous"] != before.sha256:
            yield (
                f"entry {after.number} follows another entry {before.number} than the one in this "
                "log: one of them was altered or inserted"
            )


def check_signatures(chain: Chain, trust: Trust) -> dict[int, str]:
    """Return the signatures that are not valid, by entry number, with the reason.

    A signature is valid if its key belongs to the person whom the entry names, for this purpose, at
    the time of the entry.
    """
    problems = {}
    advised = False
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
            problems[entry.number] = f"{name} is not valid: {error.what}"
            if error.kind is Kind.UNKNOWN_SIGNER and not advised:
                advised = True
                problems[entry.number] += f"; {WRONG_LIST}"
    return problems


def read(path: Path) -> bytes:
    """Return the log's bytes; none if it does not exist yet."""
    try:
        raw = read_file(path, MAX_BYTES, links=True)
    except FileNotFoundError:
        return b""
    except IsADirectoryError as error:
        raise AirliftError(
            Kind.USAGE,
            "a custody log is a file; this is a directory",
            where=str(path),
            fix=f"name a file: --custody {shlex.quote(str(path / 'airlift.custody'))}",
        ) from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _refusal(path, f"the custody log is longer than {MAX_BYTES} bytes") from error
        raise _refusal(path, f"cannot read the custody log: {error.strerror}") from error
    return raw


def check_sound(path: Path, raw: bytes) -> Chain:
    """Return the chain; refuse to continue a log with problems, which new entries would hide."""
    chain = parse(raw)
    if chain.problems:
        raise _refusal(path, "the custody log cannot be continued: " + "; ".join(chain.problems))
    return chain


def append(path: Path, facts: dict[str, Any], *, key: Path | None, seed: bytes = b"") -> Entry:
    """Add an entry durably: after a power cut the log has all of it or nothing.

    Args:
        path: of the log, which is made if it does not exist.
        facts: `time`, `who`, `host`, `done`, `note`, `result` and `bundle` of the entry.
        key: the person's key, or a `.pub` whose key is in ssh-agent; None for no signature.
        seed: what a new log begins with.
    """
    try:
        # Lock the folder for one writer at a time, because each one replaces the log.
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
            fix="use one line of printable text for each name and text",
        ) from error
    return entry


def _refusal(path: Path, what: str) -> AirliftError:
    return AirliftError(
        Kind.CUSTODY,
        what,
        where=str(path),
        fix="compare it with the copy of the person who had the bundle before; keep this one "
        "unchanged, and start another with --custody FILE if the bundle is carried on",
    )


def refuse(path: Path, problems: Sequence[str]) -> None:
    """Refuse a log that has problems."""
    if problems:
        raise _refusal(path, "the custody log has problems: " + "; ".join(first_of(problems)))
