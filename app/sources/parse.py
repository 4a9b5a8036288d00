"""CSV, JSON and JSON Lines to records; every bound is checked here."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Literal

from app.sources.base import Limits, PermanentSourceError, Record

Format = Literal["csv", "json", "jsonl"]
_MAX_COLUMNS = 500


def decode(data: bytes) -> str:
    """UTF-8, with or without a byte-order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PermanentSourceError(
            "not-utf-8", f"the data is not UTF-8: byte {error.start} cannot be read"
        ) from None


def parse(
    data: bytes, form: Format, limits: Limits, *, delimiter: str, records_path: str | None
) -> tuple[list[Record], int]:
    """Records and how many entries were no records."""
    text = decode(data)
    if form == "csv":
        return _csv(text, delimiter, limits)
    if form == "jsonl":
        return _jsonl(text, limits)
    return _json(text, records_path, limits)


def _too_many(limits: Limits) -> PermanentSourceError:
    return PermanentSourceError(
        "too-many-records", f"there are more than {limits.max_records} records"
    )


def _csv(text: str, delimiter: str, limits: Limits) -> tuple[list[Record], int]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: list[Record] = []
    rejected = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        if not any(header):
            raise PermanentSourceError("empty", "the CSV has no header line")
        if len(header) > _MAX_COLUMNS:
            raise PermanentSourceError(
                "too-many-columns", f"the CSV has more than {_MAX_COLUMNS} columns"
            )
        if len(set(header)) != len(header):
            raise PermanentSourceError("bad-header", "two columns of the CSV have one name")
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                rejected += 1
                continue
            if len(records) >= limits.max_records:
                raise _too_many(limits)
            records.append(dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise PermanentSourceError("bad-csv", f"line {reader.line_num}: {error}") from None
    return records, rejected


def _load(text: str) -> Any:
    """JSON as the standard has it: no NaN, no nesting that exhausts the stack."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _record(value: Any) -> Record | None:
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"text": value}
    return None


def _jsonl(text: str, limits: Limits) -> tuple[list[Record], int]:
    records: list[Record] = []
    rejected = 0
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            record = _record(_load(line))
        except ValueError:
            record = None
        if record is None:
            rejected += 1
            continue
        if len(records) >= limits.max_records:
            raise _too_many(limits)
        records.append(record)
    if rejected and not records:
        raise PermanentSourceError("bad-json-lines", "no line is a JSON object")
    return records, rejected


def _json(text: str, path: str | None, limits: Limits) -> tuple[list[Record], int]:
    try:
        value = _load(text)
    except ValueError as error:
        raise PermanentSourceError("bad-json", f"the data is not JSON: {error}") from None
    for key in path.split(".") if path else ():
        if not isinstance(value, dict) or key not in value:
            raise PermanentSourceError("bad-records-path", f"there is no {path} in the document")
        value = value[key]
    if isinstance(value, dict) and path is None and isinstance(value.get("records"), list):
        value = value["records"]
    if not isinstance(value, list):
        raise PermanentSourceError(
            "no-records", "the document is no list of records; name the list in records_path"
        )
    if len(value) > limits.max_records:
        raise _too_many(limits)
    records = [record for record in map(_record, value) if record is not None]
    return records, len(value) - len(records)
