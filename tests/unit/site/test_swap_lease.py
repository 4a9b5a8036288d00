"""Validity of a lease: time since boot, heartbeats, and leases of release 1.0.0."""

import dataclasses
import json
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from swap_agent import lease, reserve, runs, swap
from swap_agent.state import SwapError

from tests.unit.site.swapkit import World

#: Keys that the agent of release 1.0.0 reads and writes; it refuses any other.
KEYS = {"run", "owner", "verb", "epoch", "expires"}


class Clocks:
    """The clocks of a machine, set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.up, self.start = 1_800_000_000.0, 5000.0, "boot-1"
        monkeypatch.setattr(lease, "since_boot", lambda: self.up)
        monkeypatch.setattr(lease, "boot", lambda: self.start)
        monkeypatch.setattr(time, "time", lambda: self.wall)

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.up += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@pytest.fixture
def site(world: World, clocks: Clocks) -> World:
    """An upgrade has begun at a known time; its lease is valid for 60 s."""
    world.apply()
    world.start()
    world.begin(release="1.1.0")
    return world


def path_of(world: World) -> Path:
    return swap.lease_file(world.edge)


def held(world: World) -> lease.Lease:
    found = lease.held(path_of(world))
    assert found is not None
    return found


def beat(world: World, run: str = "run-1", seconds: float = 180) -> bool:
    return bool(runs.beat(world.edge, run=run, seconds=seconds)["held"])


def as_release_1_0_0(world: World, **changed: Any) -> None:
    """Write a lease as the agent of release 1.0.0 does."""
    raw = {"run": "run-1", "owner": "ann", "verb": "upgrade", "epoch": 1, **changed}
    path_of(world).parent.mkdir(parents=True, exist_ok=True)
    path_of(world).write_text(json.dumps(raw) + "\n")


# ---------------------------------------------------------------- the clocks
@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
def test_a_clock_that_is_set_does_no_harm(site: World, clocks: Clocks, step: float) -> None:
    clocks.wall += step
    assert held(site).left() == pytest.approx(60)
    clocks.go(59)
    with pytest.raises(lease.HeldError):
        site.lock("run-2")
    clocks.go(2)
    assert site.lock("run-2").epoch == 2


def test_after_a_reboot_it_has_its_whole_length_to_be_heard_again(
    site: World, clocks: Clocks
) -> None:
    """The time that the edge was off is unknown, and the run may still be in progress."""
    clocks.go(30)
    clocks.start, clocks.up = "boot-2", 10.0
    assert held(site).left() == pytest.approx(50)
    with pytest.raises(lease.HeldError):
        site.lock("run-2")
    assert beat(site, seconds=60)
    clocks.up += 59
    assert held(site).left() == pytest.approx(1), "the time counts from the last heartbeat"
    clocks.up += 2
    assert site.lock("run-2").epoch == 2


def test_this_machine_has_these_clocks() -> None:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert lease.since_boot() == pytest.approx(uptime, abs=60)
    assert len(lease.boot()) == 36


# ---------------------------------------------------------------- heartbeats
def test_signs_of_life_keep_a_lease_for_as_long_as_they_come(site: World, clocks: Clocks) -> None:
    site.step("images")
    for _ in range(200):
        clocks.go(100)
        assert beat(site)
    with pytest.raises(lease.HeldError):
        site.lock("run-2")
    assert held(site).epoch == 1
    clocks.go(181)
    assert site.lock("run-2").epoch == 2
    assert not beat(site)
    assert held(site).run == "run-2"


def test_a_step_keeps_it_for_as_long_as_its_last_sign_of_life(site: World, clocks: Clocks) -> None:
    """With heartbeats, another jump host can take over soon; without, after an hour."""
    site.begin(release="1.1.0")
    runs.beat(site.edge, run="run-1", seconds=180)
    site.step("images")
    assert held(site).left() == pytest.approx(180)


def test_a_beat_waits_for_nobody(site: World) -> None:
    """A switch may take minutes, and holds the agent's lock meanwhile."""
    with swap_agent_at_work(site):
        assert beat(site)


def swap_agent_at_work(world: World) -> Any:
    from swap_agent.state import exclusive  # noqa: PLC0415

    return exclusive(world.settings)


def test_a_run_that_ended_is_not_brought_to_life(site: World) -> None:
    site.end()
    assert not beat(site)
    assert held(site).given_back()
    with pytest.raises(SwapError, match="run run-1 has ended"):
        site.step("images")


# ---------------------------------------------------------------- expired leases
def test_one_that_ran_out_goes_on_while_nobody_took_over(site: World, clocks: Clocks) -> None:
    site.switch()
    clocks.go(7200)
    assert swap.show(site.edge)["lease"] is None
    assert swap.show(site.edge)["last_lease"]["run"] == "run-1"
    site.step("workers")
    assert held(site).left() == pytest.approx(60), "the lease is valid again"
    clocks.go(7200)
    assert swap.undo(site.edge, run="run-1")["changed"]
    assert site.held().release == "1.0.0"
    clocks.go(7200)
    site.end("a gate closed")
    assert swap.show(site.edge)["unfinished"] == []
    assert held(site).given_back()
    assert held(site).epoch == 1


def test_one_that_ran_out_does_nothing_once_somebody_took_over(site: World, clocks: Clocks) -> None:
    site.switch()
    clocks.go(7200)
    site.begin("run-2", "rollback", release="1.0.0")
    for refused in (lambda: site.step("workers"), lambda: swap.undo(site.edge, run="run-1")):
        with pytest.raises(SwapError, match="does not hold the lease of this site, run run-2"):
            refused()
    site.end("late")
    assert held(site).run == "run-2"
    assert held(site).left() == pytest.approx(60)


def test_who_is_at_work_is_told_with_a_command_that_ends_it(
    site: World, clocks: Clocks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The printed command works in the state in which it was printed."""
    from swap_agent import __main__  # noqa: PLC0415

    with pytest.raises(lease.HeldError) as told:
        site.lock("run-2")
    said = str(told.value)
    assert "upgrade by ann is in progress on this site (run run-1)" in said
    words = shlex.split(said[said.index("sudo airlift-swap") :])
    assert words[:2] == ["sudo", "airlift-swap"]
    settings = tmp_path / "swap.json"
    raw = dataclasses.asdict(site.settings)
    raw |= {"root": str(raw["root"]), "state_file": str(raw["state_file"])}
    raw["watch_dir"] = str(raw["watch_dir"])
    settings.write_text(json.dumps(raw))
    monkeypatch.setattr("sys.argv", ["airlift-swap", "--settings", str(settings), *words[2:]])
    __main__.main()
    assert swap.show(site.edge)["last_run"]["data"] == {"why": "no longer running"}
    assert site.lock("run-2").epoch == 2
    assert not beat(site), "the old run must not extend its lease"


# ---------------------------------------------------------------- release 1.0.0
def test_what_release_1_0_0_holds_is_held(world: World, clocks: Clocks) -> None:
    as_release_1_0_0(world, expires=clocks.wall + 50)
    assert held(world).left() == pytest.approx(50)
    with pytest.raises(lease.HeldError):
        world.lock("run-2")
    clocks.go(51)
    assert world.lock("run-2").epoch == 2


def test_what_release_1_0_0_gave_back_is_free(world: World, clocks: Clocks) -> None:
    as_release_1_0_0(world, epoch=7, expires=0.0)
    assert world.lock("run-2").epoch == 8


def test_release_1_0_0_reads_what_is_written(site: World) -> None:
    """A rollback may restore its agent."""
    beat(site)
    assert set(json.loads(path_of(site).read_text())) == KEYS
    site.end()
    assert json.loads(path_of(site).read_text()) == {
        "run": "run-1",
        "owner": "ann",
        "verb": "upgrade",
        "epoch": 1,
        "expires": 0.0,
    }


def test_a_pulse_counts_for_its_own_epoch_only(site: World, clocks: Clocks) -> None:
    """The agent of release 1.0.0 leaves the file unchanged."""
    beat(site, seconds=9999)
    as_release_1_0_0(site, run="run-5", epoch=2, expires=clocks.wall + 10)
    assert held(site).left() == pytest.approx(10)
    as_release_1_0_0(site, epoch=3, expires=clocks.wall + 10)
    assert held(site).left() == pytest.approx(10)
    as_release_1_0_0(site, epoch=1, expires=0.0)
    assert held(site).given_back()


@pytest.mark.parametrize("body", ["", "{", "[]", "{}", '{"run": "run-1", "epoch": "x"}'])
def test_a_damaged_pulse_is_none(site: World, clocks: Clocks, body: str) -> None:
    path_of(site).with_suffix(".pulse").write_text(body)
    assert held(site).left() == pytest.approx(60), "the wall clock decides"
    assert beat(site)


# ---------------------------------------------------------------- the state that a plan saw
def test_a_lock_answers_what_was_there_before_it(site: World) -> None:
    site.step("images")
    shown = swap.show(site.edge)["seen"]
    answer = again(site, "run-2", instead_of="run-1")
    assert answer["seen"] == shown
    assert answer["epoch"] == shown["epoch"] + 1
    assert swap.show(site.edge)["seen"] != shown


def again(world: World, run: str, instead_of: str = "", **data: Any) -> dict[str, Any]:
    words = {"run": run, "owner": "ann", "verb": "upgrade", "seconds": 60.0}
    return runs.begin(world.edge, **words, instead_of=instead_of, data=data)  # type: ignore[arg-type]


def test_whatever_another_run_does_is_seen(site: World) -> None:
    """This includes changes without a new generation, and runs that an operator ended by hand."""
    numbers = [swap.show(site.edge)["seen"]]
    for act in (
        lambda: site.step("images"),
        lambda: site.end("no room"),
        lambda: site.begin("run-2"),
        lambda: site.switch(run="run-2"),
        lambda: site.end(run="run-2"),
    ):
        act()
        numbers.append(swap.show(site.edge)["seen"])
    assert len({tuple(one.items()) for one in numbers}) == len(numbers)
    beat(site, "run-2")
    assert swap.show(site.edge)["seen"] == numbers[-1]


def test_another_aim_of_the_same_run_is_noted(site: World) -> None:
    again(site, "run-1", release="1.1.0")
    assert len(site.events()) == 1
    again(site, "run-1", release="1.2.0")
    (left,) = swap.show(site.edge)["unfinished"]
    assert left["data"]["release"] == "1.2.0"
    assert held(site).epoch == 1


def test_nothing_of_the_lease_is_left_over(site: World) -> None:
    beat(site)
    reserve.keep(site.edge)
    assert not list(site.root.rglob("*.new"))
    assert not list(site.root.rglob("*.beat"))
