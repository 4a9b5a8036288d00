"""A run of a playbook, as the edge sees it: it begins, goes from step to step, and ends."""

from __future__ import annotations

import dataclasses
from typing import Any

from swap_agent import lease
from swap_agent.journal import VERBS
from swap_agent.nginx import Edge
from swap_agent.swap import journal_of, lease_file, seen


def begin(
    edge: Edge,
    *,
    run: str,
    owner: str,
    verb: str,
    seconds: float,
    instead_of: str,
    data: dict[str, Any],
) -> dict[str, Any]:
    """Take the lease and record which operation begins, and with which aim.

    For the same run, only prolong the lease and record a changed aim. `seen` in the answer is the
    state just before: a plan that saw the same state is still valid.
    """
    before = seen(edge)
    taken = lease.acquire(
        lease_file(edge), run=run, owner=owner, verb=verb, seconds=seconds, instead_of=instead_of
    )
    journal, wanted = journal_of(edge), {"owner": owner, **data}
    noted = {one["step"]: one["data"] for one in journal.open_steps() if one["run"] == run}
    if before["epoch"] != taken.epoch or noted.get(verb) != wanted:
        journal.append(run, verb, "intent", wanted)
    return {"changed": False, **dataclasses.asdict(taken), "seen": before}


def beat(edge: Edge, *, run: str, seconds: float) -> dict[str, Any]:
    """Record a heartbeat: for so long no other run may take over. Waits for no other command."""
    return {"changed": False, "held": lease.beat(lease_file(edge), run, seconds)}


def step(edge: Edge, *, run: str, name: str) -> dict[str, Any]:
    """Close this run's previous step, open the next, and prolong the lease."""
    lease.check(lease_file(edge), run)
    journal = journal_of(edge)
    for record in journal.open_steps():
        if record["run"] == run and record["step"] not in {*VERBS, name}:
            journal.append(run, record["step"], "done")
    journal.append(run, name, "intent")
    return {"changed": False, "step": name}


def end(edge: Edge, *, run: str, why: str = "", data: dict[str, Any]) -> dict[str, Any]:
    """Close every open step, also those of interrupted runs, and release the lease.

    `why` is the reason of a failure; when it is empty, the run succeeded. A success ends another
    interrupted operation as `given up`: a rollback cancels an upgrade that way.
    """
    path = lease_file(edge)
    taken = lease.held(path)
    if taken is None or taken.run != run or taken.given_back():
        return {"changed": False, "why": "this run does not hold the lock"}
    journal = journal_of(edge)
    event = "failed" if why else "done"
    begun = journal.open_steps()
    # Which host it is about, a run says when it begins.
    aims = [record["data"] for record in begun if record["step"] == taken.verb]
    host = {"host": aims[-1]["host"]} if aims and "host" in aims[-1] else {}
    note = {**host, **data, **({"why": why} if why else {})}
    opened = {record["step"] for record in begun}
    for name in sorted(opened - set(VERBS)):
        journal.append(run, name, event)
    for name in sorted(opened & set(VERBS) - {taken.verb}):
        journal.append(run, name, "failed" if why else "given up")
    journal.append(run, taken.verb, event, note)
    return {"changed": False, "released": lease.release(path, run)}
