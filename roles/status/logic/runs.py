"""The runs of playbooks on a site: in progress, interrupted, failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from roles.status.logic.model import Problem, Rank

#: What an operator runs, as the swap agent notes it.
VERBS = ("install", "upgrade", "rollback", "retire", "drain", "bring_back")
#: Those that are about one host.
OF_HOST = ("drain", "bring_back")


class Runs(NamedTuple):
    """The facts about runs, and unfinished work."""

    facts: list[str]
    problems: list[Problem]
    at_work: bool = False
    #: Whether rollback.yml would clean up the interrupted upgrade.
    give_up: bool = False


def words_of(verb: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a run does, in words, and the playbook that does it."""
    if verb in OF_HOST:
        host = data.get("host", "?")
        return f"{verb.replace('_', ' ')} of {host}", f"drain_host.yml -e {verb}={host}"
    return f"{verb} to {data.get('release')}", f"{verb}.yml"


def failed(edge: Mapping[str, Any], host: str) -> tuple[list[str], list[Problem]]:
    """Return the facts and problems of the last run when it failed."""
    last = edge.get("last_run")
    if not last or last["event"] != "failed":
        return [], []
    verb, release = last["step"], last["data"].get("release", "?")
    why = " ".join(str(last["data"].get("why") or "it gave no reason").split())
    what, playbook = words_of(verb, {"release": release, **last["data"]})
    fact = f"last run: {what}, failed at {last['time']}: {why}"
    found = f"the last {verb}, to {release}, failed"
    if verb in OF_HOST:
        found = f"the last {what} failed"
    # A failed upgrade is undone: an install confirms the release that serves. The rest goes on.
    undone = verb == "upgrade" and release != edge["release"]
    fix = "install.yml" if undone else playbook
    return [fact], [Problem(Rank.WARNING, host, found, why, fix=fix, limit=False)]


def runs_of(edge: Mapping[str, Any], host: str) -> Runs:
    """Return the facts and problems of the runs on this site; `host` is the edge."""
    facts, problems = failed(edge, host)
    begun = edge.get("unfinished", [])
    verbs = [record for record in begun if record["step"] in VERBS]
    # Of several interrupted runs, the newest has the site's last target.
    newest = max(verbs, key=lambda record: int(record["seq"]), default=None)
    if newest is None:
        return Runs(facts, problems)
    steps = [one for one in begun if one["step"] not in VERBS and one["run"] == newest["run"]]
    step = max(steps, key=lambda record: int(record["seq"]), default=None)
    where = f" in step {step['step']}" if step else ""
    release = newest["data"].get("release")
    what, fix = words_of(newest["step"], newest["data"])
    lease = edge.get("lease")
    if lease and edge.get("at_work", True):
        line = f"in progress: {what}{where}, by {lease['owner']}, since {newest['time']}"
        return Runs([*facts, line], [], at_work=True)
    found = f"{what} was interrupted{where}; resume with {fix}"
    # Finish the interrupted run first; an earlier failure no longer matters.
    again = Problem(Rank.RUN, host, found, fix=fix, limit=False, release=str(release or ""))
    return Runs(facts, [again], give_up=newest["step"] == "upgrade" and edge["release"] != release)
