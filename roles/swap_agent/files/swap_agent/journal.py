"""The journal of steps that began and ended: appended, flushed, never rewritten."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from swap_agent.state import SwapError, in_words, now, parsed, sync_directory

#: A step is open from its intent until one of these.
ENDS = ("done", "failed", "given up")
#: The operations of an operator; each is itself a step around its steps.
VERBS = ("install", "upgrade", "rollback", "retire", "drain", "bring_back")
_SHAPE = {"seq": int, "time": str, "run": str, "step": str, "event": str, "data": dict}


def _record(line: bytes) -> dict[str, Any]:
    found = parsed(line.decode())
    for key, kind in _SHAPE.items():
        if not isinstance(found.get(key), kind):
            raise ValueError(f"its {key} is missing or of another type")
    return found


class Journal:
    """One JSON object per line: seq, time, run, step, event (intent or one of ENDS), data."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> list[dict[str, Any]]:
        """Return every complete record; an incomplete last line, left by a crash, is ignored."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(lines[:-1], 1):
            try:
                found.append(_record(line))
            except ValueError as error:
                raise SwapError(f"line {number} of {self.path} is damaged: {error}") from error
        return found

    def append(self, run: str, step: str, event: str, data: dict[str, Any] | None = None) -> None:
        """Write one record and flush it to disk before anything that follows from it."""
        with in_words(self.path):
            self._append({"run": run, "step": step, "event": event, "data": data or {}})

    def _append(self, told: dict[str, Any]) -> None:
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = not self.path.exists()
        record = {"seq": self.last() + 1, "time": now(), **told}
        body = (json.dumps(record, sort_keys=True) + "\n").encode()
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as handle:
            # After the last complete record: this replaces a line that a crash cut short.
            whole = handle.read().rfind(b"\n") + 1
            handle.truncate(whole)
            handle.seek(whole)
            handle.write(body)
            handle.flush()
            os.fsync(handle.fileno())
        if fresh:
            sync_directory(self.path.parent)

    def last(self) -> int:
        """Return the number of the last record; 0 when there is none."""
        records = self.records()
        return int(records[-1]["seq"]) if records else 0

    def open_steps(self) -> list[dict[str, Any]]:
        """Return the steps that began and did not end: where a run was interrupted."""
        begun: dict[str, dict[str, Any]] = {}
        for record in self.records():
            if record["event"] in ENDS:
                begun.pop(record["step"], None)
            else:
                begun[record["step"]] = record
        return list(begun.values())

    def last_end(self) -> dict[str, Any] | None:
        """Return the last record that ended a run."""
        ends = [r for r in self.records() if r["step"] in VERBS and r["event"] in ENDS]
        return ends[-1] if ends else None

    def of_this_work(self) -> list[dict[str, Any]]:
        """Return the records of the unfinished operation, over all runs that were interrupted.

        They begin after the last operation that ended, and after one with another aim: another
        operation or another release.
        """
        records = self.records()
        begin, aim = len(records), None
        for place, record in reversed(list(enumerate(records))):
            if record["step"] in VERBS:
                wanted = (record["step"], record["data"].get("release"))
                if record["event"] in ENDS or aim not in (None, wanted):
                    break
                begin, aim = place, wanted
        return records[begin:]
