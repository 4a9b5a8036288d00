"""The demo's screen writes the result of a step to the log, too."""

from __future__ import annotations

import io

import pytest

from scripts.screen import Screen


def test_what_a_step_found_is_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()
    screen = Screen(log)
    screen.start("16/17  Count")
    screen.listen("GET /health")
    screen.done("6016 requests, 0 failed")
    assert "6016 requests, 0 failed" in capsys.readouterr().out
    told = [line.partition(" ")[2] for line in log.getvalue().splitlines()]
    assert told[:2] == ["=== 16/17  Count", "GET /health"]
    assert told[2].startswith("=== after ")
    assert told[2].endswith(" s: 6016 requests, 0 failed")
    # No colours in a log.
    assert "\033" not in log.getvalue()
