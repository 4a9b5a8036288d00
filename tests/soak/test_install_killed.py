"""`kill -9` of the controller at task after task of an install: the same command finishes it."""

from __future__ import annotations

import pytest

from scripts.journey import Journey, recap
from scripts.lab import Done
from tests.e2e.support import kill_at

#: A run is killed after this many tasks; the next run starts from its remains.
EVERY = 12


def kill_after(placed: Journey, tasks: int) -> Done:
    return kill_at(placed, "install", "TASK [", nth=tasks, options=["-v"])


@pytest.mark.timeout(4 * 3600)
def test_killed_at_task_after_task(placed: Journey) -> None:
    kills = 0
    while (done := kill_after(placed, (kills + 1) * EVERY)).code != 0:
        assert done.code == 255, done.output[-2000:]
        kills += 1
    assert kills > 10
    placed.fetch_access()
    placed.smoke()
    assert recap(placed.play("install").output).changed == 0
