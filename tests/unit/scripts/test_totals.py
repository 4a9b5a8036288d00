"""The summary at the end of `make test`: the result of each stage, and its time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lab import ROOT

#: The format of a pytest report.
REPORT = """<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests">
<testsuite name="pytest" errors="{errors}" failures="{failures}" skipped="{skipped}" tests="{total}"
 time="9">{cases}</testsuite></testsuites>"""


def report(
    seconds: dict[str, float], *, failures: int = 0, errors: int = 0, skipped: int = 0
) -> str:
    cases = "".join(
        f'<testcase classname="tests.unit.test_some" name="test_{name}" time="{time}" />'
        for name, time in seconds.items()
    )
    return REPORT.format(
        errors=errors, failures=failures, skipped=skipped, total=len(seconds), cases=cases
    )


def ended(folder: Path, *stages: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/junit_totals.py", folder, "1234", *stages],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def stage(folder: Path, name: str, code: int, seconds: int, made: str = "") -> None:
    (folder / f"{name}.end").write_text(f"{code} {seconds}\n")
    if made:
        (folder / f"{name}.xml").write_text(made)


def test_stages_come_in_their_order_with_their_time_and_the_tests_share_of_it(
    tmp_path: Path,
) -> None:
    stage(tmp_path, "lint", 0, 81)
    stage(tmp_path, "unit", 0, 300, report({"quick": 0.004, "slow": 280}, skipped=1))
    code, said = ended(tmp_path, "unit", "lint")
    assert code == 0
    rows = [line.split() for line in said.splitlines()]
    assert rows[1] == ["unit", "passed", "300", "s", "2", "280", "s"]
    assert rows[2] == ["lint", "passed", "81", "s"]
    assert rows[3] == ["all", "1234", "s"]
    assert said.splitlines()[-1] == "1 passed, 0 failed, 1 skipped"


def test_the_reports_of_a_stages_parts_are_added_up(tmp_path: Path) -> None:
    stage(tmp_path, "molecule", 1, 400)
    (tmp_path / "molecule-default.xml").write_text(report({"a": 1, "b": 1}))
    (tmp_path / "molecule-single.xml").write_text(report({"c": 1}, failures=1))
    code, said = ended(tmp_path, "molecule")
    assert code == 1
    assert said.splitlines()[-1] == "2 passed, 1 failed"


def test_the_ten_slowest_tests_of_all_stages_are_named(tmp_path: Path) -> None:
    stage(tmp_path, "unit", 0, 300, report({f"unit{n}": n for n in range(8)}))
    stage(tmp_path, "site", 0, 900, report({f"site{n}": n + 0.4 for n in range(8)}))
    _, said = ended(tmp_path, "unit", "site")
    slow = said.partition("SLOWEST TESTS\n")[2].partition("\n\n")[0].splitlines()
    assert len(slow) == 10
    assert slow[0].split() == ["7", "s", "site", "test_some::test_site7"]
    assert slow[1].split() == ["7", "s", "unit", "test_some::test_unit7"]


@pytest.mark.parametrize(
    ("code", "made", "closing"),
    [
        (0, report({"a": 1, "b": 1}), "2 passed, 0 failed"),
        (1, report({"a": 1, "b": 1}, failures=1), "1 passed, 1 failed"),
        (1, report({"a": 1, "b": 1}, failures=1, errors=1), "0 passed, 2 failed"),
        # All tests passed but the stage failed, or it left no report.
        (3, report({"a": 1, "b": 1}), "2 passed, 1 failed"),
        (2, "", "0 passed, 1 failed"),
    ],
)
def test_a_failed_stage_is_counted_and_ends_in_failure(
    code: int, made: str, closing: str, tmp_path: Path
) -> None:
    stage(tmp_path, "unit", code, 3, made)
    stage(tmp_path, "lint", 0, 81)
    found, said = ended(tmp_path, "unit", "lint")
    assert found == int(code != 0)
    assert said.splitlines()[-1] == closing
    assert (f"FAILED (exit {code})" in said) == (code != 0)


def test_a_stage_that_was_ended_from_outside_is_a_failure(tmp_path: Path) -> None:
    code, said = ended(tmp_path, "unit")
    assert code == 1
    assert re.search(r"^0 passed, 1 failed$", said, re.MULTILINE)


#: A stand-in for pytest that writes a report and fails in the stage named by FAILS.
PYTEST = """#!/bin/sh
for word; do case $word in --junitxml=*) report=${word#*=} ;; esac; done
cp report.xml "$report"
[ "$(basename "$report")" != "$FAILS.xml" ]
"""
TRUE = "#!/bin/sh\n"


@pytest.mark.parametrize("fails", ["", "site", "stack"])
def test_the_runner_tells_the_end_of_every_stage(fails: str, tmp_path: Path) -> None:
    """Run the stages in the foreground and the background with stand-ins for all programs."""
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    for name in ("test-all.sh", "junit_totals.py"):
        (tmp_path / "scripts" / name).write_text((ROOT / "scripts" / name).read_text())
    stubs = {programs / name: TRUE for name in ("make", "ansible-playbook")}
    stubs |= {tmp_path / "scripts/molecule-test.sh": TRUE, programs / "pytest": PYTEST}
    for path, text in stubs.items():
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "bundle").symlink_to(ROOT / "bundle")
    (programs / "python").symlink_to(sys.executable)
    (tmp_path / "report.xml").write_text(report({"a": 2}))
    done = subprocess.run(
        ["bash", "scripts/test-all.sh"],
        cwd=tmp_path,
        env={**os.environ, "FAILS": fails},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == int(bool(fails)), done.stdout + done.stderr
    rows = done.stdout.partition("IN TESTS\n")[2].partition("\n\n")[0].splitlines()
    found = {row.split()[0]: row.split()[1] for row in rows}
    assert list(found) == ["site", "unit", "lint", "molecule", "stack", "operator", "all"]
    assert {name for name, result in found.items() if result == "FAILED"} == {fails} - {""}
    assert done.stdout.splitlines()[-1] == f"4 passed, {int(bool(fails))} failed"
