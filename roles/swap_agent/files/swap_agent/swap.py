"""Activate a configuration or the other colour, verify it, and report what is active."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import Any

from swap_agent import drained, edges, lease, watch
from swap_agent.journal import Journal
from swap_agent.nginx import Edge, engine, fingerprint
from swap_agent.state import COLOURS, NoRoomError, State, SwapError, in_words, now, sync_directory


@dataclasses.dataclass(frozen=True)
class Together:
    """How a command changes an edge of a site that has several."""

    #: Only test what would serve: the other edges test it, too, before the first one changes.
    test: bool = False
    #: The number of the new generation, on all edges; by default the next one of this edge.
    generation: int | None = None
    #: Return while old workers of Nginx still serve; `settle` waits for them.
    later: bool = False


ALONE = Together()


def put_in_place(edge: Edge, state: State, number: int | None = None) -> State:
    """Make the wanted configuration the live tree and let Nginx serve it; undo both on failure."""
    previous = edge.live.resolve() if edge.live.is_symlink() else None
    before = edge.live_generation()
    generation = number or max(before, state.generation) + 1
    if generation <= before:
        raise SwapError(
            f"this edge serves generation {before}; {generation} is not newer: run the same "
            "command again"
        )
    tree = edge.trees / f"{generation:06d}"
    try:
        staged = edge.stage(generation, state)
        judge(edge, staged)
        shutil.rmtree(tree, ignore_errors=True)
        staged.rename(tree)
        sync_directory(edge.trees)
        edge.point(tree)
    except (OSError, SwapError):
        # An inactive tree only takes space, on a disk that may be full.
        shutil.rmtree(tree.with_name(f"{tree.name}.staged"), ignore_errors=True)
        if edge.live_generation() != generation:
            shutil.rmtree(tree, ignore_errors=True)
        raise
    result = dataclasses.replace(state, generation=generation)
    if edge.running():
        try:
            edge.reload(generation)
        except SwapError as error:
            if previous is None:
                raise
            edge.point(previous)
            with contextlib.suppress(SwapError):  # the first error names the cause
                edge.hup()
            raise SwapError(f"{error}; generation {before} is active again") from error
    result.save(edge.settings.state_file)
    edge.prune()
    return result


def judge(edge: Edge, staged: Path) -> None:
    """Test a tree with Nginx; without space for that, an earlier test of its content counts."""
    try:
        edge.test(staged)
    except NoRoomError:
        if not edge.served_before(staged):
            raise


def rehearse(edge: Edge, state: State, out: drained.Drained) -> dict[str, Any]:
    """Test what this edge would serve, and change nothing."""
    differs = fingerprint(edge.wanted(state), out) != fingerprint(edge.served())
    if differs:
        staged = edge.stage(0, state, out)
        try:
            judge(edge, staged)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    record = {"state": dataclasses.asdict(state), "drained": out}
    live = edge.live_generation()
    return {"changed": False, "differs": differs, "live_generation": live, "record": record}


def converge(edge: Edge, state: State, number: int | None = None) -> tuple[State, bool, str]:
    """Make Nginx serve a state; return the resulting state, whether it changed, and why."""
    held = State.load(edge.settings.state_file)
    live = edge.live_generation()
    wanted = fingerprint(edge.wanted(state), edge.drained())
    if not live or wanted != fingerprint(edge.served()):
        return put_in_place(edge, state, number), True, "the configuration differs"
    if number and number > live:
        return put_in_place(edge, state, number), True, "the number of the other edges"
    # An earlier run may have ended between the rename and the reload.
    late = edge.running() and edge.answered() not in {None, live}
    if late:
        edge.reload(live)
    state = dataclasses.replace(state, generation=live)
    if held != state:
        state.save(edge.settings.state_file)
    return state, late, "the live tree was not active yet" if late else "nothing to do"


def apply(edge: Edge, release: str, serial: int, how: Together = ALONE) -> dict[str, Any]:
    """Activate the wanted configuration; the active colour stays the same."""
    held = State.load(edge.settings.state_file)
    if held and (held.release, held.serial) != (release, serial):
        raise SwapError(
            f"this site serves release {held.release} (serial {held.serial}), not "
            f"{release} (serial {serial}): a release changes by upgrade or "
            "rollback, never by install"
        )
    wanted = held or State(COLOURS[0], None, release, serial, 0, now())
    if how.test:
        return rehearse(edge, wanted, drained.load(edge.settings))
    state, changed, why = converge(edge, wanted, how.generation)
    return {"changed": changed, "why": why, **told(edge, state)}


def told(edge: Edge, state: State) -> dict[str, Any]:
    """Return a state as a part of an answer, and as a record for the other edges."""
    record = {"state": dataclasses.asdict(state), "drained": drained.load(edge.settings)}
    return {**dataclasses.asdict(state), "record": record}


def target(held: State, to: str, release: str, serial: int, warm: float) -> State:
    """Return the state in which `to` serves a release and the active colour is the standby.

    With the active release, the other colour has other settings: the rollback target stays the
    same. The freed colour is no standby until `stand_by` makes it one.
    """
    same = (release, serial) == (held.release, held.serial)
    if same and to != held.active:
        return dataclasses.replace(held, active=to, standby=None, since=now())
    if to == held.active:
        if same:
            return held
        raise SwapError(
            f"{to} serves release {held.release} (serial {held.serial}); release {release} goes "
            "to the other colour"
        )
    return State(
        active=to,
        standby=held.active,
        release=release,
        serial=serial,
        generation=held.generation,
        since=now(),
        previous_release=held.release,
        previous_serial=held.serial,
        warm_until=now(warm),
    )


def installed(edge: Edge) -> State:
    """Return the state of an installed site."""
    held = State.load(edge.settings.state_file)
    if held is None:
        raise SwapError("nothing is installed here yet; run playbooks/install.yml first")
    return held


def switch(
    edge: Edge,
    *,
    run: str,
    to: str,
    release: str,
    serial: int,
    warm: float,
    how: Together = ALONE,
) -> dict[str, Any]:
    """Make the other colour active; the colour that served before stays warm as the standby.

    Returns only when the workers of the previous generation have ended: until then they pass
    requests to the old colour. After an interruption, the same command finishes the work.
    """
    lease.check(lease_file(edge), run)
    held = installed(edge)
    return move(edge, run, held, target(held, to, release, serial, warm), how=how)


def retire(edge: Edge, *, run: str, returns: bool = False, how: Together = ALONE) -> dict[str, Any]:
    """Retire the standby: when this returns, no request is sent to it any more.

    The record keeps its release, for a rollback from its pinned images. With `returns` it also
    keeps the end of the rollback window: `stand_by` restores the standby.
    """
    lease.check(lease_file(edge), run)
    held = installed(edge)
    until = held.warm_until if returns else None
    wanted = dataclasses.replace(held, standby=None, warm_until=until)
    return move(edge, run, held, wanted, how=how)


def stand_by(edge: Edge, *, run: str, how: Together = ALONE) -> dict[str, Any]:
    """Restore the standby in the other colour, after `retire` with `returns`.

    Does not wait for old workers: they send requests to the active colour, which stays. Whatever
    stops a colour later waits for all workers that began before it.
    """
    lease.check(lease_file(edge), run)
    held = installed(edge)
    if held.standby is None and held.warm_until is None:
        raise SwapError("no standby is to be restored; upgrade.yml and rollback.yml create one")
    other = next(colour for colour in COLOURS if colour != held.active)
    how = dataclasses.replace(how, later=True)
    return move(edge, run, held, dataclasses.replace(held, standby=other), how=how)


def undo(edge: Edge, *, run: str, how: Together = ALONE) -> dict[str, Any]:
    """Restore what served before an unfinished run switched, if it came that far."""
    lease.check(lease_file(edge), run)
    held = installed(edge)
    wanted = held
    # A run that reached `finish` has verified its release: nothing of it is undone.
    for record in journal_of(edge).of_this_work():
        if record["step"] == "finish":
            wanted = held
        if record["step"] == "switch" and record["event"] == "intent":
            before, after = (_noted(edge, record, side) for side in ("from", "to"))
            if after.active != before.active:
                wanted = before if held.active == after.active else held
    # Also when there is nothing to restore: Nginx may have reloaded before that was recorded.
    return move(edge, run, held, wanted, step="undo", how=how)


def _noted(edge: Edge, record: dict[str, Any], side: str) -> State:
    """Return a state recorded in the journal."""
    try:
        return State.read(record["data"][side])
    except (KeyError, TypeError, AttributeError) as error:
        path, number = journal_of(edge).path, record["seq"]
        raise SwapError(f"record {number} of {path} is damaged: {side}: {error}") from error


def move(
    edge: Edge,
    run: str,
    held: State,
    wanted: State,
    *,
    step: str = "switch",
    how: Together = ALONE,
) -> dict[str, Any]:
    """Go from one state to another; record intent and result in the journal."""
    if how.test:
        return rehearse(edge, wanted, drained.load(edge.settings))
    journal = journal_of(edge)
    open_steps = {record["step"] for record in journal.open_steps()}
    before = edge.workers() if edge.running() else set()
    if held != wanted and step not in open_steps:
        data = {"from": dataclasses.asdict(held), "to": dataclasses.asdict(wanted)}
        journal.append(run, step, "intent", data)
        open_steps.add(step)
    try:
        with in_words():
            state, changed, why = converge(edge, wanted, how.generation)
        if not how.later:
            edge.wait_until_gone(before if changed else edge.workers(retiring=True))
    except SwapError as error:
        if step in open_steps:
            # On a full disk this fails, too; the first failure is the one to report.
            with contextlib.suppress(SwapError):
                journal.append(run, step, "failed", {"why": str(error)})
        raise
    for name in open_steps & {"switch", step}:
        journal.append(run, name, "done", {"generation": state.generation})
    return {"changed": changed or held != wanted, "why": why, **told(edge, state)}


def lease_file(edge: Edge) -> Path:
    """Return where the lease is."""
    return edge.settings.state_file.with_name("lease.json")


def journal_of(edge: Edge) -> Journal:
    """Return the journal of this host."""
    return Journal(edge.settings.state_file.with_name("journal"))


def seen(edge: Edge) -> dict[str, int]:
    """Return three numbers that grow with each change: if they are equal, nothing changed."""
    state = State.load(edge.settings.state_file)
    holder = lease.held(lease_file(edge))
    return {
        "generation": state.generation if state else 0,
        "epoch": holder.epoch if holder else 0,
        "seq": journal_of(edge).last(),
    }


def verify(edge: Edge) -> dict[str, Any]:
    """Verify that Nginx serves the live tree."""
    live = edge.live_generation()
    if not edge.serves(live):
        said = engine("logs", "--tail", "5", edge.settings.container).stderr.strip()
        raise SwapError(f"Nginx answers generation {edge.answered()}, not {live}: {said}")
    return {"changed": False, "generation": live}


def show(edge: Edge) -> dict[str, Any]:
    """Return the recorded state and what is really served."""
    # First: what is read after it is at least as new.
    before = seen(edge)
    state = State.load(edge.settings.state_file)
    holder = lease.held(lease_file(edge))
    last = dataclasses.asdict(holder) if holder and not holder.given_back() else None
    return {
        "installed": state is not None,
        **(told(edge, state) if state else {}),
        "live_generation": edge.live_generation(),
        "served_generation": edge.answered(),
        "lease": last if holder and holder.left() > 0 else None,
        # Also an expired one that no other run has taken over yet.
        "last_lease": last,
        "unfinished": journal_of(edge).open_steps(),
        "last_run": journal_of(edge).last_end(),
        "seen": before,
        **watch.shown(edge.settings.watch_dir),
        "edges": edges.shown(edge.settings),
        "drained": drained.load(edge.settings),
        "app_hosts": drained.names(edge.upstream()),
        "now": now(),
    }
