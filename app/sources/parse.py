"""Parse CSV, JSON and JSON Lines into batches of records; report entries that are no records."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Literal

from app.sources.base import Batch, Entry, Fault, Limits, PermanentSourceError, RefusedSourceError
from app.sources.intake import Intake
from app.sources.jsonlist import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    BrokenJsonError,
    JsonList,
    NoListError,
    NoPathError,
)

Format = Literal["csv", "json", "jsonl"]
BATCH = 250
_MAX_COLUMNS = 500
# Process-wide. A field may be as long as a JSON record; the library's default is 131,072.
csv.field_size_limit(MAX_CHARACTERS)
_UNDECODED = frozenset(map(chr, range(0xDC80, 0xDD00)))

TOO_LARGE = Fault("too large or too deeply nested")
NOT_JSON = Fault("not JSON")
NO_RECORD = Fault("not a record")
COLUMNS = Fault("wrong number of columns")


def parse(
    intake: Intake, form: Format, limits: Limits, *, delimiter: str, records_path: str | None
) -> Iterator[Batch]:
    """Return the records of a source's bytes; raise `SourceError` if all of it is unusable."""
    text = intake.text()
    if form == "csv":
        entries = _csv(text, delimiter, intake.foreign)
    elif form == "jsonl":
        entries = _jsonl(text)
    else:
        entries = _json(text, records_path)
    return batched(_decoded(entries), limits.max_records)


def _decoded(entries: Iterator[Entry]) -> Iterator[Entry]:
    try:
        yield from entries
    except UnicodeDecodeError:
        raise PermanentSourceError(
            "bad-utf-16", "the source is UTF-16 and ends within a character"
        ) from None


def batched(entries: Iterable[Entry], most: int, size: int = BATCH) -> Iterator[Batch]:
    """Yield entries in batches; raise an error for more than `most`, or for no record at all."""
    rest = iter(entries)
    count = good = 0
    while batch := list(islice(rest, size)):
        count += len(batch)
        if count > most:
            raise RefusedSourceError("too-many-records", f"there are more than {most} records")
        good += sum(not isinstance(what, Fault) for _, what in batch)
        yield batch
    if count and not good:
        raise PermanentSourceError(
            "no-valid-record", f"none of the source's {count} entries is a record"
        )


def read_record(text: str) -> Any:
    """Return one JSON value as a record, or a `Fault` with the reason why it is not one."""
    if len(text) > MAX_CHARACTERS or _too_deep(text):
        return TOO_LARGE
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NOT_JSON
    if isinstance(value, dict):
        return value
    return {"text": value} if isinstance(value, str) else NO_RECORD


def _too_deep(text: str) -> bool:
    # The number of opening brackets limits the depth, so most records need no closer check.
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    try:
        return next(JsonList(io.StringIO(f"[{text}]")).entries([])) is None
    except (ValueError, StopIteration):
        return False


def _refuse(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _csv(
    text: io.TextIOWrapper, delimiter: str, foreign: Callable[[], str | None]
) -> Iterator[Entry]:
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        header = _header(next(reader, []), foreign)
        for row in reader:
            if not row:
                continue
            if len(row) == len(header):
                yield reader.line_num, dict(zip(header, row, strict=True))
            else:
                yield reader.line_num, COLUMNS
    except csv.Error as error:
        # After an unbalanced quote, the records that follow cannot be separated from it.
        wrong = "a quote or a line end is not where CSV has it"
        if "field larger" in str(error):
            wrong = f"a field has more than {MAX_CHARACTERS} characters"
        raise PermanentSourceError("bad-csv", f"line {reader.line_num}: {wrong}") from None


def _header(row: list[str], foreign: Callable[[], str | None]) -> list[str]:
    header = [name.strip() for name in row]
    if not any(header):
        raise PermanentSourceError("empty", "the CSV has no header line")
    if not _UNDECODED.isdisjoint("".join(header)):
        message = foreign() or "the header is not UTF-8; save the CSV as UTF-8"
        raise PermanentSourceError("not-utf-8", message)
    if any("\x00" in name for name in header):
        raise PermanentSourceError(
            "not-utf-8",
            "the CSV looks like UTF-16 without a byte-order mark: save it as UTF-8 "
            "(in Excel: CSV UTF-8)",
        )
    if len(header) > _MAX_COLUMNS:
        raise PermanentSourceError(
            "too-many-columns", f"the CSV has more than {_MAX_COLUMNS} columns"
        )
    if len(set(header)) != len(header):
        raise PermanentSourceError("bad-header", "two columns of the CSV have one name")
    return header


def _jsonl(text: io.TextIOWrapper) -> Iterator[Entry]:
    number = 0
    readline: Callable[[int], str] = text.readline
    while line := readline(MAX_CHARACTERS + 1):
        number += 1
        if len(line) > MAX_CHARACTERS:
            while line and not line.endswith("\n"):
                line = readline(MAX_CHARACTERS)
            yield number, TOO_LARGE
        elif line.strip():
            yield number, read_record(line)


def _json(text: io.TextIOWrapper, path: str | None) -> Iterator[Entry]:
    found = JsonList(text).entries(path.split(".") if path else None)
    try:
        for number, value in enumerate(found, start=1):
            yield number, TOO_LARGE if value is None else read_record(value)
    except NoPathError:
        if path:
            message = f"there is no {path} in the document"
            raise PermanentSourceError("bad-records-path", message) from None
        raise _no_records() from None
    except NoListError:
        raise _no_records() from None
    except BrokenJsonError as error:
        raise PermanentSourceError("bad-json", f"the data is not JSON: {error}") from None


def _no_records() -> PermanentSourceError:
    return PermanentSourceError(
        "no-records", "the document is no list of records; name the list in records_path"
    )
