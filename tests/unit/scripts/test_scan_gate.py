"""The scan fails only for vulnerabilities that an update fixes."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from scripts import scan_gate

TODAY = dt.datetime.now(dt.UTC).date()
FINDING = {
    "id": "CVE-2026-0001",
    "component": "app",
    "package": "libssl3t64",
    "version": "3.5.1-1",
    "severity": "high",
    "fixed_in": "3.5.1-1+deb13u2",
}
ENTRY = {"id": "CVE-2026-0001", "package": "libssl3t64", "why": "not reachable"}


class Gate:
    """The report and the list of accepted vulnerabilities."""

    def __init__(self, root: Path) -> None:
        self.report, self.accepted = root / "report.json", root / "vulnerabilities.json"

    def run(self, *findings: dict[str, Any], accepted: object = (), scanned: bool = True) -> int:
        body = {"scanned": scanned, "reason": "" if scanned else "no scanner", "findings": findings}
        self.report.write_text(json.dumps(body))
        self.accepted.write_text(json.dumps(accepted))
        return scan_gate.main([str(self.report)], self.accepted)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def days(number: int) -> str:
    return (TODAY + dt.timedelta(days=number)).isoformat()


def test_nothing_found_passes(gate: Gate) -> None:
    assert gate.run() == 0


@pytest.mark.parametrize("severity", ["critical", "high", "HIGH", None, "not yet assigned"])
def test_what_an_update_would_end_fails(
    gate: Gate, severity: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate.run({**FINDING, "severity": severity}) == 1
    said = capsys.readouterr()
    assert "libssl3t64 3.5.1-1, fixed in 3.5.1-1+deb13u2" in said.out
    assert "1 to be updated" in said.err


@pytest.mark.parametrize(
    "change", [{"fixed_in": None}, {"severity": "medium"}, {"severity": "unimportant"}]
)
def test_the_rest_is_only_listed(
    gate: Gate, change: dict[str, str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate.run({**FINDING, **change}) == 0
    assert "no action yet: 1" in capsys.readouterr().out


def test_what_is_accepted_passes_until_its_last_day(gate: Gate) -> None:
    assert gate.run(FINDING, accepted=[{**ENTRY, "until": days(0)}]) == 0
    assert gate.run(FINDING, accepted=[{**ENTRY, "until": days(-1)}]) == 1


def test_it_is_accepted_for_one_package_only(gate: Gate) -> None:
    other = {**FINDING, "package": "openssl"}
    assert gate.run(FINDING, other, accepted=[{**ENTRY, "until": days(9)}]) == 1


def test_an_entry_that_meets_nothing_is_named(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate.run(accepted=[{**ENTRY, "until": days(9)}]) == 0
    assert "is no longer found: remove the line" in capsys.readouterr().out


@pytest.mark.parametrize(
    "accepted",
    [{}, [{**ENTRY, "until": ""}], [ENTRY], [{**ENTRY, "until": "soon"}], ["CVE-2026-0001"], 7],
)
def test_a_list_without_reason_or_day_is_refused(gate: Gate, accepted: object) -> None:
    if accepted == {}:
        assert gate.run(accepted=accepted) == 0
    else:
        assert gate.run(accepted=accepted) == 2


def test_a_missing_scan_is_a_failure_unless_it_is_allowed(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gate.run(scanned=False) == 1
    monkeypatch.setenv("SCAN_MAY_BE_MISSING", "1")
    assert gate.run(scanned=False) == 0
    assert gate.run(FINDING, scanned=False) == 1


def test_a_report_that_is_none_is_refused(gate: Gate, tmp_path: Path) -> None:
    gate.run()
    for text in ("", "[]", "{}"):
        gate.report.write_text(text)
        assert scan_gate.main([str(gate.report)], gate.accepted) == 2
    assert scan_gate.main([str(tmp_path / "none")], gate.accepted) == 2
    assert scan_gate.main([]) == 2


def test_the_lists_of_this_tree_can_be_used() -> None:
    assert scan_gate.accepted(scan_gate.ACCEPTED, TODAY) is not None


def test_without_a_candidate_the_command_that_makes_one_is_named(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan_gate.main([str(gate.report)], gate.accepted) == 2
    assert f"{gate.report} is missing; fix: make candidate\n" in capsys.readouterr().err


def test_a_build_that_scanned_nothing_is_told_with_the_way_on(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate.run(scanned=False) == 1
    said = capsys.readouterr().err
    assert "nothing was scanned; fix: " in said
    page = (scan_gate.ACCEPTED.parent.parent / "docs" / "DEPLOYMENT_STRATEGY.md").read_text()
    assert "`nothing was scanned`" in page
    assert "SCAN_MAY_BE_MISSING=1 make scan" in said
    assert "`SCAN_MAY_BE_MISSING=1 make scan`" in page
