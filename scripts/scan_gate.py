"""Fail when a release has known vulnerabilities that an update would end.

    python3 scripts/scan_gate.py dist/candidate/about/vulnerabilities.json

Fails: critical and high ones with a fix, and ones without a severity with a fix. Shown only: the
rest, for which nothing can be done yet. `.ci/vulnerabilities.json` lists what was looked at and is
accepted, with a reason and a last day; after that day it fails again. A report that says that
nothing was scanned fails, unless SCAN_MAY_BE_MISSING=1.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

ACCEPTED = Path(__file__).resolve().parent.parent / ".ci" / "vulnerabilities.json"
#: What may wait although it has a fix.
MINOR = ("medium", "low", "negligible", "unimportant")


class GateError(Exception):
    """What is wrong with the files, in a sentence."""


class Verdict(NamedTuple):
    """Findings by what is to be done."""

    failing: list[dict[str, Any]]
    accepted: list[dict[str, Any]]
    waiting: list[dict[str, Any]]
    #: Entries of the list that meet nothing any more.
    stale: list[dict[str, Any]]


def accepted(path: Path, today: dt.date) -> list[dict[str, Any]]:
    """Read what is accepted; an entry without a reason or a day is refused."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        for one in entries:
            if set(one) != {"id", "package", "until", "why"} or not all(one.values()):
                raise GateError(f"{path}: an entry has id, package, until and why: {one}")
            one["over"] = dt.date.fromisoformat(one["until"]) < today
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise GateError(f"{path} cannot be used: {error}") from error
    return list(entries)


def judge(report: dict[str, Any], entries: list[dict[str, Any]]) -> Verdict:
    """Sort the findings."""
    verdict = Verdict([], [], [], [])
    met = set()
    for one in report["findings"]:
        known = [
            number
            for number, entry in enumerate(entries)
            if (entry["id"], entry["package"]) == (one["id"], one["package"])
        ]
        met.update(known)
        if not one["fixed_in"] or str(one["severity"] or "").lower() in MINOR:
            verdict.waiting.append(one)
        elif known and not entries[known[0]]["over"]:
            verdict.accepted.append(one)
        else:
            verdict.failing.append(one)
    verdict.stale.extend(entry for number, entry in enumerate(entries) if number not in met)
    return verdict


def rows(title: str, findings: list[dict[str, Any]]) -> list[str]:
    """Return a table of findings, each of which a person can look up."""
    if not findings:
        return []
    lines = [f"\n{title}: {len(findings)}"]
    for one in findings:
        fix = f"fixed in {one['fixed_in']}" if one["fixed_in"] else "no fix"
        severity = one["severity"] or "unrated"
        lines.append(
            f"  {one['id']:<18}  {severity:<10}  {one['component']:<18}  "
            f"{one['package']} {one['version']}, {fix}"
        )
    return lines


def main(words: list[str], path: Path = ACCEPTED) -> int:
    """Judge a report; return the exit code."""
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    if not Path(words[0]).is_file():
        print(f"scan: {words[0]} is missing; fix: make candidate", file=sys.stderr)
        return 2
    try:
        report = json.loads(Path(words[0]).read_text(encoding="utf-8"))
        today = dt.datetime.now(dt.timezone.utc).date()  # noqa: UP017 - Python 3.9 and later
        verdict = judge(report, accepted(path, today))
        scanned, reason = report["scanned"], report["reason"]
    except (GateError, OSError, ValueError, KeyError, TypeError) as error:
        print(f"scan: {words[0]}: {error}", file=sys.stderr)
        return 2
    for line in (
        *rows("to be updated", verdict.failing),
        *rows("accepted for now", verdict.accepted),
        *rows("nothing to be done yet", verdict.waiting),
    ):
        print(line)
    if reason:
        print(f"\nnot scanned: {reason}")
    for one in verdict.stale:
        print(
            f"{path.name}: {one['id']} of {one['package']} is not found any more: remove the line"
        )
    missing = not scanned and os.environ.get("SCAN_MAY_BE_MISSING") != "1"
    if missing:
        print(
            "scan: nothing was scanned; fix: give the build vulnerability data, or accept it: "
            "SCAN_MAY_BE_MISSING=1 make scan",
            file=sys.stderr,
        )
    if verdict.failing:
        print(
            f"scan: {len(verdict.failing)} to be updated: make lock, or a newer base; what was "
            f"looked at and may stay goes into .ci/{path.name}",
            file=sys.stderr,
        )
    return 1 if missing or verdict.failing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
