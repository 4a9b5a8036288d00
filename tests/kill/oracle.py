"""Judges a run by what the clients were told and what the database recorded by itself.

A trigger writes each change of a job's state into a log, in the transaction that makes it: so a
second end of a job shows even if the row looks right afterwards.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.kill.ledger import FILES, KINDS, Entry
from tests.unit.app.appkit import Site

TERMINAL = ("succeeded", "failed", "dead", "cancelled")
LOG = """
CREATE TABLE kill_log (
    number bigint GENERATED ALWAYS AS IDENTITY, job_id uuid, state text, epoch bigint, attempts int
);
CREATE FUNCTION kill_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO kill_log (job_id, state) VALUES (OLD.id, 'deleted');
        RETURN OLD;
    END IF;
    INSERT INTO kill_log (job_id, state, epoch, attempts)
    VALUES (NEW.id, NEW.state, NEW.lease_epoch, NEW.attempts);
    RETURN NEW;
END $$;
CREATE TRIGGER kill_insert AFTER INSERT OR DELETE ON jobs
    FOR EACH ROW EXECUTE FUNCTION kill_note();
CREATE TRIGGER kill_update AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION kill_note();
"""


@dataclass
class Verdict:
    """The outcome of a run, with a message for each fault."""

    accepted: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    states: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, kind: str, text: str) -> None:
        """Count a fault as `lost`, `duplicated` or `wrong`."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.faults.append(f"{kind}: {text}")


def judge(site: Site, entries: list[Entry], references: dict[str, Any]) -> Verdict:
    """Compare what was accepted with what became of it."""
    verdict = Verdict()
    with site.connect() as connection:
        rows = connection.execute("SELECT id::text, state, attempts FROM jobs").fetchall()
        results = dict(
            connection.execute("SELECT job_id::text, result FROM job_results").fetchall()
        )
        log = connection.execute(
            "SELECT job_id::text, state FROM kill_log ORDER BY number"
        ).fetchall()
    states = {job: state for job, state, _attempts in rows}
    verdict.states = Counter(states.values())
    verdict.attempts = sum(attempts for _job, _state, attempts in rows)
    ends: dict[str, list[str]] = defaultdict(list)
    for job, state in log:
        if state in TERMINAL:
            ends[job].append(state)
    found = _Found(states, ends, results, references)
    accepted: set[str] = set()
    for entry in entries:
        accepted |= entry.ids
        _judge_one(verdict, entry, found)
    verdict.accepted = len(accepted)
    for job in states.keys() - accepted:
        verdict.fault("duplicated", f"job {job} was never accepted, and it is {states[job]}")
    return verdict


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database holds, by job, and the results without kills."""

    states: dict[str, str]
    ends: dict[str, list[str]]
    results: dict[str, Any]
    references: dict[str, Any]


def _judge_one(verdict: Verdict, entry: Entry, found: _Found) -> None:
    if len(entry.ids) > 1:
        verdict.fault("duplicated", f"one key made the jobs {sorted(entry.ids)}")
    for job in entry.ids:
        if entry.cancelled == 404:
            verdict.fault("lost", f"job {job} was accepted and then not known")
        name = f"{entry.kind} job {entry.number} ({job})"
        state = found.states.get(job)
        if state is None:
            verdict.fault("lost", f"{name} was accepted and is not there")
            continue
        if state not in TERMINAL:
            verdict.fault("lost", f"{name} is still {state}")
            continue
        if len(found.ends[job]) != 1:
            verdict.fault(
                "duplicated", f"{name} ended {len(found.ends[job])} times: {found.ends[job]}"
            )
        if state not in expected(entry):
            verdict.fault("lost", f"{name} ended as {state}")
        if (job in found.results) != (state == "succeeded"):
            verdict.fault(
                "wrong", f"{name} is {state}, its result is there: {job in found.results}"
            )
        elif (
            state == "succeeded"
            and comparable(found.results[job]) != found.references[reference(entry)]
        ):
            verdict.fault("wrong", f"{name} has another result than without kills")


def expected(entry: Entry) -> frozenset[str]:
    """The states that such a job may end in, given what its client was told."""
    if entry.cancelled is not None:
        return frozenset({"cancelled" if entry.cancelled == 200 else "succeeded"})
    return KINDS[entry.kind][1] if entry.kind in KINDS else frozenset({"succeeded"})


def reference(entry: Entry) -> str:
    """Which result without kills this job's must equal."""
    if entry.kind == "file":
        return f"part-{entry.number % FILES}.csv"
    return entry.kind if entry.kind in ("flaky", "changing") else "slow"


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """A result without the address of its source, which is another for each flaky job."""
    source = {name: value for name, value in result["source"].items() if name != "url"}
    return {**result, "source": source}
