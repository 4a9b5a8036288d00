"""Runs of playbooks as the swap agent sees them: lock, steps, ends, and undo."""

import dataclasses
from typing import Any

import pytest
from swap_agent import __main__, lease, swap
from swap_agent.state import State, SwapError

from tests.unit.site.swapkit import World


# ---------------------------------------------------------------- undo
def undo(world: World, run: str = "run-1") -> dict[str, Any]:
    return swap.undo(world.edge, run=run)


def test_undo_puts_back_what_served_before_the_run(upgrading: World) -> None:
    before = upgrading.held()
    upgrading.switch()
    answer = undo(upgrading)
    assert answer["changed"]
    assert dataclasses.replace(upgrading.held(), generation=before.generation) == before
    assert (upgrading.edge.live / "upstream.conf").read_text() == "# upstreams/blue.conf\n"
    assert not undo(upgrading)["changed"]


def test_undo_leaves_alone_what_had_not_switched(upgrading: World) -> None:
    swap.retire(upgrading.edge, run="run-1")
    assert not undo(upgrading)["changed"]
    assert upgrading.held().active == "blue"


def test_undo_leaves_alone_what_an_earlier_run_finished(upgrading: World) -> None:
    upgrading.switch()
    upgrading.end()
    upgrading.begin("run-2")
    assert not undo(upgrading, "run-2")["changed"]
    assert upgrading.held().release == "1.1.0"


def test_undo_reaches_back_to_the_run_that_died(upgrading: World) -> None:
    upgrading.switch()
    upgrading.begin("run-2", instead_of="run-1")
    assert undo(upgrading, "run-2")["changed"]
    assert upgrading.held().release == "1.0.0"


def test_an_undo_is_not_undone(upgrading: World) -> None:
    upgrading.switch()
    undo(upgrading)
    upgrading.begin("run-2", instead_of="run-1")
    assert not undo(upgrading, "run-2")["changed"]
    assert upgrading.held().release == "1.0.0"


def test_undo_also_ends_a_switch_that_was_cut_off_before_it_was_recorded(upgrading: World) -> None:
    wanted = swap.target(upgrading.held(), "green", "1.1.0", 2, 60)
    data = {"from": dataclasses.asdict(upgrading.held()), "to": dataclasses.asdict(wanted)}
    swap.journal_of(upgrading.edge).append("run-1", "switch", "intent", data)
    swap.put_in_place(upgrading.edge, wanted)
    dataclasses.replace(State.read(data["from"])).save(upgrading.settings.state_file)
    assert undo(upgrading)["changed"]
    assert (upgrading.edge.live / "upstream.conf").read_text() == "# upstreams/blue.conf\n"
    assert [r["step"] for r in swap.show(upgrading.edge)["unfinished"]] == ["upgrade"]


# ------------------------------------------------------------- undo after several interrupted runs
@pytest.fixture
def rolled(world: World) -> World:
    """An upgrade to 1.1.0 and the rollback from it were both interrupted after their switch."""
    world.apply()
    world.start()
    world.begin(release="1.1.0")
    world.switch()
    world.begin("run-2", "rollback", instead_of="run-1", release="1.0.0")
    world.switch("blue", "1.0.0", 1, run="run-2")
    return world


def serves(world: World) -> tuple[str, str, str | None]:
    """Return the active release, and check that record and Nginx agree."""
    held = world.held()
    name = f"{held.active}-{held.standby}" if held.standby else held.active
    assert (world.edge.live / "upstream.conf").read_text() == f"# upstreams/{name}.conf\n"
    assert world.serving == held.generation
    return held.active, held.release, held.standby


def test_undo_of_a_rollback_that_is_run_again_is_what_it_were_in_one_run(rolled: World) -> None:
    """A gate failed: the release from before the rollback serves again, as the message says."""
    rolled.begin("run-3", "rollback", instead_of="run-2", release="1.0.0")
    undo(rolled, "run-3")
    assert serves(rolled) == ("green", "1.1.0", "blue")


def test_undo_of_giving_up_an_upgrade_leaves_what_an_earlier_rollback_did(rolled: World) -> None:
    """Cancelling is a rollback in the journal; it names the release that is removed."""
    rolled.begin("run-3", "rollback", instead_of="run-2", release="1.1.0")
    undo(rolled, "run-3")
    assert serves(rolled) == ("blue", "1.0.0", "green")


def test_undo_of_an_upgrade_whose_earlier_rollback_had_switched(rolled: World) -> None:
    before = rolled.held()
    rolled.begin("run-3", instead_of="run-2", release="1.1.0")
    rolled.switch(run="run-3")
    assert undo(rolled, "run-3")["changed"]
    assert serves(rolled) == ("blue", "1.0.0", "green")
    assert dataclasses.replace(rolled.held(), generation=before.generation) == before


@pytest.mark.parametrize("release", ["1.1.0", "1.2.0"])
def test_undo_of_an_upgrade_before_its_switch_leaves_what_an_earlier_rollback_did(
    rolled: World, release: str
) -> None:
    rolled.begin("run-3", instead_of="run-2", release=release)
    assert not undo(rolled, "run-3")["changed"]
    assert serves(rolled) == ("blue", "1.0.0", "green")


def test_undo_of_an_upgrade_leaves_what_one_to_another_release_did(upgrading: World) -> None:
    """Its colour is already in use: the previously active containers no longer run there."""
    upgrading.switch()
    upgrading.begin("run-2", instead_of="run-1", release="1.2.0")
    swap.retire(upgrading.edge, run="run-2")
    assert not undo(upgrading, "run-2")["changed"]
    assert serves(upgrading) == ("green", "1.1.0", None)


def test_undo_reaches_back_over_all_runs_with_the_same_aim(rolled: World) -> None:
    """The first run switched; the others ended before their switch."""
    rolled.end(run="run-2")
    rolled.begin("run-3", release="1.1.0")
    rolled.switch(run="run-3")
    for number in (4, 5):
        rolled.begin(f"run-{number}", instead_of=f"run-{number - 1}", release="1.1.0")
        rolled.step("images", f"run-{number}")
    assert undo(rolled, "run-5")["changed"]
    assert serves(rolled) == ("blue", "1.0.0", "green")


@pytest.mark.parametrize("again", [False, True])
def test_undo_leaves_alone_what_came_to_its_finish(upgrading: World, *, again: bool) -> None:
    """This also holds if the run that completes it fails."""
    upgrading.switch()
    upgrading.step("workers")
    upgrading.step("finish")
    run = "run-1"
    if again:
        run = "run-2"
        upgrading.begin(run, instead_of="run-1")
        upgrading.step("images", run)
        upgrading.switch(run=run)
    assert not undo(upgrading, run)["changed"]
    assert serves(upgrading) == ("green", "1.1.0", "blue")


def test_the_finish_of_one_is_no_finish_of_another(upgrading: World) -> None:
    """A rollback after an upgrade that was interrupted during its clean-up can still be undone."""
    upgrading.switch()
    upgrading.step("finish")
    upgrading.begin("run-2", "rollback", instead_of="run-1", release="1.0.0")
    upgrading.switch("blue", "1.0.0", 1, run="run-2")
    assert undo(upgrading, "run-2")["changed"]
    assert serves(upgrading) == ("green", "1.1.0", "blue")


def test_an_intent_that_is_repeated_counts_from_its_last_record(rolled: World) -> None:
    """The sequence number decides which of the interrupted runs is undone."""
    rolled.begin("run-3", instead_of="run-2", release="1.1.0")
    left = {record["step"]: record["seq"] for record in swap.show(rolled.edge)["unfinished"]}
    assert left["upgrade"] > left["rollback"]


# ---------------------------------------------------------------- runs
def test_a_run_leaves_its_steps_in_the_journal(upgrading: World) -> None:
    upgrading.step("images")
    upgrading.step("schema")
    assert [r["step"] for r in swap.show(upgrading.edge)["unfinished"]] == ["upgrade", "schema"]
    upgrading.end()
    assert upgrading.events() == [
        ("upgrade", "intent"),
        ("images", "intent"),
        ("images", "done"),
        ("schema", "intent"),
        ("schema", "done"),
        ("upgrade", "done"),
    ]
    shown = swap.show(upgrading.edge)
    assert shown["unfinished"] == []
    assert shown["lease"] is None
    assert shown["last_run"]["event"] == "done"


def test_a_run_that_took_over_ends_the_steps_of_the_dead_one(upgrading: World) -> None:
    upgrading.step("images")
    upgrading.begin("run-2", instead_of="run-1")
    upgrading.end("no room", run="run-2")
    shown = swap.show(upgrading.edge)
    assert shown["unfinished"] == []
    assert shown["last_run"]["data"]["why"] == "no room"


def test_only_a_run_that_is_known_to_be_dead_is_taken_over(upgrading: World) -> None:
    with pytest.raises(lease.HeldError):
        upgrading.begin("run-3", instead_of="run-2")
    upgrading.begin("run-3", instead_of="run-1")
    with pytest.raises(SwapError, match="does not hold"):
        upgrading.step("images")


def test_a_run_that_was_replaced_ends_nothing(upgrading: World) -> None:
    upgrading.begin("run-2", instead_of="run-1")
    upgrading.end("late", run="run-1")
    assert swap.show(upgrading.edge)["lease"]["run"] == "run-2"


def test_what_a_rollback_takes_away_is_given_up_and_not_done(upgrading: World) -> None:
    upgrading.step("colour")
    upgrading.begin("run-2", "rollback", instead_of="run-1", release="1.1.0")
    upgrading.end(run="run-2")
    assert upgrading.events()[-2:] == [("upgrade", "given up"), ("rollback", "done")]
    assert swap.show(upgrading.edge)["last_run"]["event"] == "done"
    assert swap.show(upgrading.edge)["unfinished"] == []


def test_an_upgrade_whose_rollback_failed_did_not_succeed(upgrading: World) -> None:
    upgrading.begin("run-2", "rollback", instead_of="run-1", release="1.0.0")
    upgrading.end("no room", run="run-2")
    assert upgrading.events()[-2:] == [("upgrade", "failed"), ("rollback", "failed")]


def test_the_journal_is_read_by_people(world: World) -> None:
    world.apply()
    world.start()
    world.begin(release="1.1.0")
    world.step("colour")
    world.end("not ready")
    lines = [__main__.line(record) for record in swap.journal_of(world.edge).records()]
    assert [" ".join(text.split()[1:]) for text in lines] == [
        "upgrade begun to 1.1.0 by ann",
        "colour begun",
        "colour failed",
        "upgrade failed not ready",
    ]


# ---------------------------------------------------------------- lease and journal
def test_only_the_holder_of_the_lease_switches(serving: World) -> None:
    with pytest.raises(SwapError, match="run run-2 does not hold the lease"):
        serving.switch(run="run-2")
    assert serving.state()["active"] == "blue"


def test_a_second_run_is_told_who_is_at_work(serving: World) -> None:
    with pytest.raises(
        SwapError, match=r"by ann is in progress .* airlift-swap unlock --run run-1"
    ):
        serving.lock("run-2")


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_is_fenced_off(serving: World) -> None:
    assert serving.lock(seconds=-1).epoch == 1
    assert serving.lock("run-2").epoch == 2
    with pytest.raises(SwapError, match="does not hold the lease"):
        serving.switch(run="run-1")


def test_the_epoch_grows_when_a_lease_is_taken_again(serving: World) -> None:
    assert serving.lock().epoch == 1, "the lease was extended, not taken again"
    assert lease.release(swap.lease_file(serving.edge), "run-1")
    assert serving.lock("run-2").epoch == 2
    assert not lease.release(swap.lease_file(serving.edge), "run-1")


def test_a_record_that_a_crash_cut_short_never_happened(world: World) -> None:
    journal = swap.journal_of(world.edge)
    journal.append("r", "dump", "intent")
    with journal.path.open("ab") as file:
        file.write(b'{"seq": 2, "st')
    assert [record["seq"] for record in journal.records()] == [1]
    journal.append("r", "dump", "done")
    assert [record["seq"] for record in journal.records()] == [1, 2]
    assert journal.open_steps() == []


def test_a_damaged_record_is_an_error(world: World) -> None:
    journal = swap.journal_of(world.edge)
    journal.append("r", "dump", "intent")
    journal.path.write_bytes(b"junk\n" + journal.path.read_bytes())
    with pytest.raises(SwapError, match="line 1"):
        journal.records()
