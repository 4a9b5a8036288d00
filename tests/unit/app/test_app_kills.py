"""B7: no kill loses an accepted job or runs one twice. `make kills` is the long form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app import failpoints
from tests.kill import broken
from tests.kill.run import Plan, run
from tests.unit.app.appkit import ROOT, Postgres, Redis


@pytest.mark.docker
@pytest.mark.slow
def test_b7_nothing_is_lost_whatever_is_killed(postgres: Postgres, redis: Redis) -> None:
    outcome = run(Plan(jobs=300, warm=True), postgres, redis, print)
    assert outcome.verdict.faults == []
    assert outcome.missed == [], "no kill at these points"
    assert outcome.verdict.accepted >= 300
    assert set(outcome.kills) >= {"api master", "api worker", "postgres", "redis"}
    assert sum(
        count for kind, count in outcome.kills.items() if kind.endswith("at a failpoint")
    ) >= len(failpoints.POINTS)


@pytest.mark.docker
@pytest.mark.skipif("AIRLIFT_SOAK" not in os.environ, reason="a control of the soak")
@pytest.mark.parametrize(("way", "found"), [("fencing", "wrong"), ("commit", "lost")])
@pytest.mark.slow
def test_the_oracle_notices_a_broken_service(
    postgres: Postgres, redis: Redis, tmp_path: Path, way: str, found: str
) -> None:
    outcome = run(Plan(jobs=300, code=broken.copy(way, tmp_path)), postgres, redis, print)
    assert getattr(outcome.verdict, found) > 0


def test_every_failpoint_is_reached_by_the_service_and_listed() -> None:
    text = "".join(path.read_text() for path in sorted((ROOT / "app").rglob("*.py")))
    assert set(re.findall(r'failpoints\.reached\("([a-z._]+)"\)', text)) == failpoints.POINTS


def test_nothing_in_the_service_arms_a_failpoint() -> None:
    for path in (ROOT / "app").rglob("*.py"):
        assert "failpoints.install" not in path.read_text(), path
    done = _python("import app.failpoints as f; f.reached('claim.after'); print('alive')")
    assert done.stdout == "alive\n", "the variable alone must not arm a failpoint"


def test_the_kill_tests_arm_it_from_outside(tmp_path: Path) -> None:
    path = f"{ROOT / 'tests' / 'kill' / 'armed'}:{ROOT}"
    code = "import app.failpoints as f; f.reached('claim.after'); print('alive')"
    done = _python(code, PYTHONPATH=path, AIRLIFT_FAILPOINTS_FIRED=str(tmp_path))
    assert (done.returncode, done.stdout) == (-9, "")
    again = _python(code, PYTHONPATH=path, AIRLIFT_FAILPOINTS_FIRED=str(tmp_path))
    assert again.stdout == "alive\n", "a failpoint fires once"


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), "AIRLIFT_FAILPOINTS": "claim.after=kill", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
