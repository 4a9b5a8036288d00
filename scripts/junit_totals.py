"""Report how the stages of `make test` ended and how long they took; add up their tests.

    python scripts/junit_totals.py FOLDER SECONDS STAGE ...

FOLDER has STAGE.end (exit code and seconds) per stage, and STAGE.xml for stages that ran pytest, or
STAGE-PART.xml for each of its parts.
The exit code is 0 if all stages passed.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bundle.core.text import table

#: Number of rows in the second table.
SLOWEST = 10


@dataclass(frozen=True)
class Stage:
    """The result of one stage, and the times of its tests."""

    name: str
    code: int
    seconds: int
    passed: int
    failed: int
    skipped: int
    #: (seconds, module, name); the first test that uses a fixture includes its set-up.
    tests: tuple[tuple[float, str, str], ...]

    @classmethod
    def read(cls, folder: Path, name: str) -> Stage:
        """Read a stage's result and report; without STAGE.end it was killed."""
        end = folder / f"{name}.end"
        reports = [folder / f"{name}.xml", *sorted(folder.glob(f"{name}-*.xml"))]
        code, seconds = map(int, end.read_text().split()) if end.exists() else (1, 0)
        root = ET.Element("all")
        root.extend(ET.parse(one).getroot() for one in reports if one.exists())  # noqa: S314 - our own files
        total = failed = skipped = 0
        for suite in root.iter("testsuite"):
            total += int(suite.get("tests", "0"))
            failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
            skipped += int(suite.get("skipped", "0"))
        tests = tuple(
            (
                float(case.get("time", "0")),
                case.get("classname", "").rpartition(".")[2],
                case.get("name", ""),
            )
            for case in root.iter("testcase")
        )
        # A stage that failed without a failed test is a failure, too.
        counted = max(failed, int(code != 0))
        return cls(name, code, seconds, total - failed - skipped, counted, skipped, tests)

    @property
    def row(self) -> tuple[str, ...]:
        """Return the stage's line of the first table."""
        result = "passed" if self.code == 0 else f"FAILED (exit {self.code})"
        inside = f"{sum(seconds for seconds, *_ in self.tests):.0f} s" if self.tests else ""
        return self.name, result, f"{self.seconds} s", str(len(self.tests) or ""), inside


def slowest(stages: Sequence[Stage]) -> list[tuple[str, str, str]]:
    """Return the tests of all stages that took the longest: seconds, stage, test."""
    found = [(*test, stage.name) for stage in stages for test in stage.tests]
    return [
        (f"{seconds:.0f} s", stage, f"{module}::{name}")
        for seconds, module, name, stage in sorted(found, reverse=True)[:SLOWEST]
    ]


def main() -> int:
    """Print both tables and the closing line; return the exit code."""
    folder, seconds, *names = sys.argv[1:]
    stages = [Stage.read(Path(folder), name) for name in names]
    rows = [*(one.row for one in stages), ("all", "", f"{seconds} s", "", "")]
    print(table(rows, ("stage", "result", "time", "tests", "in tests")))
    if slow := slowest(stages):
        print(f"\n{table(slow, ('time', 'stage', 'slowest tests'), 80)}")
    passed, failed, skipped = (
        sum(getattr(one, name) for one in stages) for name in ("passed", "failed", "skipped")
    )
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return int(any(one.code for one in stages))


if __name__ == "__main__":
    sys.exit(main())
