"""Find problems in the answers of replicas, workers, exporters and targets, and in the keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from roles.status.logic import model
from roles.status.logic.model import Findings, Problem, Rank

SMOKE = "airlift-smoke"


def taken_out(findings: Findings, host: str, colour: str) -> Mapping[str, Any]:
    """Return the edge watcher's record of a replica that it took out; empty for others."""
    edge = model.edge_of(findings)
    for group in (edge.get("replicas"), edge.get("standby_replicas")):
        one = group.get(host) if isinstance(group, Mapping) else None
        if one and one.get("state") == "out" and one.get("colour") == colour:
            return dict(one)
    return {}


def replica(findings: Findings, host: str, colour: str) -> tuple[Mapping[str, Any], bool]:
    """Return the readiness answer of a replica, and whether the edge received it."""
    name = f"app-{colour}"
    for one in findings["zones"].get("dmz", []):
        answers = model.facts_of(findings, one).get("answers") or {}
        # The edge refuses connections to a replica that is out, which hides the cause.
        if f"{name} on {host}" in answers and not taken_out(findings, host, colour):
            return answers[f"{name} on {host}"], True
    own = model.facts_of(findings, host).get("answers") or {}
    return own.get(name, {}), False


def of_answer(
    host: str, name: str, answer: Mapping[str, Any], release: str, *, edge: bool
) -> Iterator[Problem]:
    """Return the problem in the readiness answer of a replica or a worker."""
    found, said = "", ""
    if answer["error"]:
        found, said = f"{name} on {host} does not answer", str(answer["error"])
        if edge:
            found = f"the edge cannot reach {name} on {host}"
    elif answer["status"] != 200:
        found, said = f"{name} on {host} is not ready", model.wrong_checks(answer)
    elif release and answer["release"] not in {"", release}:
        found = f"{name} on {host} answers as release {answer['release']}, not {release}"
    elif answer["ready"] not in {"", "ready"}:
        found, said = f"{name} on {host} is {answer['ready']}", model.wrong_checks(answer)
    if found:
        yield Problem(Rank.REPLICA, host, found, said, service=name)


def of_replicas(findings: Findings, edge: Mapping[str, Any], active: str) -> Iterator[Problem]:
    """Return the problems of the serving replicas and their workers."""
    release = str(edge.get("release") or "")
    for host in model.app_hosts(findings):
        answer, from_edge = replica(findings, host, active)
        if answer:
            yield from of_answer(host, f"app-{active}", answer, release, edge=from_edge)
        own = model.facts_of(findings, host).get("answers") or {}
        if worker := own.get(f"worker-{active}"):
            yield from of_answer(host, f"worker-{active}", worker, release, edge=False)


def refused(findings: Findings, host: str, service: str) -> str:
    """Return which logins of a container are refused, and why; empty when none is."""
    logins = (model.facts_of(findings, host).get("logins") or {}).get(service) or {}
    return "; ".join(f"{name}: {error}" for name, error in logins.items() if error)


def of_logins(findings: Findings, active: str) -> Iterator[Problem]:
    """Return the serving containers whose logins are refused, even if open connections work."""
    for host in model.app_hosts(findings):
        for service in (f"app-{active}", f"worker-{active}"):
            if why := refused(findings, host, service):
                found = f"{service} on {host} cannot log in"
                yield Problem(Rank.REPLICA, host, found, why, service=service)


def of_watcher(findings: Findings, edge: Mapping[str, Any]) -> Iterator[Problem]:
    """Return the replicas that the edge's watcher took out, or that the watcher does not run."""
    watcher = edge.get("watcher")
    if isinstance(watcher, Mapping) and watcher.get("alive") is False:
        host = model.edge_host(findings)
        found = f"the watcher on {host} does not run, so a failing replica would get requests"
        yield Problem(Rank.EDGE, host, found)
    replicas = edge.get("replicas")
    for name, one in (replicas if isinstance(replicas, Mapping) else {}).items():
        if one.get("state") == "out":
            found = f"the edge sends no requests to {name} since {one.get('since')}"
            known = name in model.hosts_of(findings)
            host = str(name) if known else model.edge_host(findings)
            said, service = str(one.get("why") or ""), f"app-{one.get('colour')}"
            yield Problem(Rank.REPLICA, host, found, said, limit=known, service=service)


def of_drained(findings: Findings, active: str) -> Iterator[Problem]:
    """Return the drained hosts as warnings: what serves is as it should be, with one host less."""
    for host, one in model.drained_of(findings).items():
        found = f"{host} is drained by {one.get('by')} since {one.get('since')}"
        fix = f"drain_host.yml -e bring_back={host}"
        if model.container_of(model.facts_of(findings, host), f"worker-{active}"):
            found += ", and its worker still runs"
            fix = f"drain_host.yml -e drain={host}"
        yield Problem(Rank.WARNING, host, found, fix=fix, limit=False)


def of_exporters(findings: Findings) -> Iterator[Problem]:
    """Return the exporters that do not reach their service."""
    for host in model.asked(findings):
        for name, answer in (model.facts_of(findings, host).get("answers") or {}).items():
            if "value" not in answer:
                continue
            if answer["error"]:
                found = f"{name} on {host} shows no metrics"
                yield Problem(Rank.EXPORTER, host, found, str(answer["error"]), service=name)
            elif answer["value"] != 1:
                found = f"{name} on {host} cannot reach its service, or its login is refused"
                yield Problem(Rank.EXPORTER, host, found, service=name)


def service_of(target: Mapping[str, Any]) -> str:
    """Return the service behind a Prometheus target."""
    job = str(target["job"])
    if target["colour"]:
        return f"{job}-{target['colour']}"
    return f"{job}-exporter" if job in {"postgres", "redis", "nginx", "node"} else job


def of_targets(findings: Findings, active: str, standby: str) -> Iterator[Problem]:
    """Return what Prometheus cannot scrape."""
    for host in findings["zones"].get("monitor", []):
        answer = (model.facts_of(findings, host).get("answers") or {}).get("targets")
        if not answer:
            continue
        if answer["error"]:
            found, said = f"prometheus on {host} does not answer", str(answer["error"])
            yield Problem(Rank.EXPORTER, host, found, said, service="prometheus")
        for one in answer["down"]:
            # The standby of a site that was just retired leaves the targets some seconds later.
            expected = {"", active, standby if one["job"] == "app" else active}
            if one["colour"] not in expected:
                continue
            found = f"prometheus on {host} cannot reach {one['job']} at {one['instance']}"
            service, there = service_of(one), str(one["host"] or host)
            yield Problem(Rank.EXPORTER, there, found, str(one["error"]), service=service)


def database_of(findings: Findings) -> Mapping[str, Any]:
    """Return the answer of the database; empty when it was not queried."""
    for host in findings["zones"].get("data", []):
        if said := model.facts_of(findings, host).get("database"):
            return dict(said)
    return {}


def of_database(findings: Findings) -> Iterator[Problem]:
    """Return where the keys in the database differ from those in the vault."""
    said = database_of(findings)
    host = str((findings["zones"].get("data") or ["-"])[0])
    if said.get("error"):
        found = f"the database on {host} does not report its schema"
        yield Problem(Rank.REPLICA, host, found, str(said["error"]), service="postgres")
        return
    clients: Sequence[str] = findings["clients"]
    for place in said.get("missing", []):
        found = f"the key of client {clients[place]} is in the vault, but not in the database"
        yield Problem(Rank.STATE, host, found, limit=False)
    for place in said.get("revoked", []):
        found = f"the key of client {clients[place]} was revoked by hand, but is in the vault"
        before = "remove its entry from app_api_keys"
        yield Problem(Rank.STATE, host, found, limit=False, before=before)
    for client in said.get("unknown", []):
        # Another jump host has its own smoke key.
        if client != SMOKE:
            found = f"a key of client {client} is in the database, but not in the vault"
            yield Problem(Rank.STATE, host, found, limit=False)


def through_the_edge(findings: Findings) -> tuple[str, str]:
    """Return (the service's answer through the edge, the problem in it)."""
    found = []
    for host in findings["zones"].get("dmz", []):
        answer = (model.facts_of(findings, host).get("answers") or {}).get("edge")
        if answer:
            found.append(_through(answer, host if len(findings["zones"]["dmz"]) > 1 else ""))
    # Of several edges, the one with a problem.
    wrong = [one for one in found if one[1]]
    return (wrong or found or [("not asked", "")])[0]


def _through(answer: Mapping[str, Any], host: str) -> tuple[str, str]:
    """Return the answer of one edge and its problem; of several, with the edge's name."""
    edge = f"the edge {host}" if host else "the edge"
    if answer["error"]:
        return f"no answer ({answer['error']})", f"{edge} does not answer"
    if answer["status"] != 200:
        return f"HTTP {answer['status']}", f"the service is not ready through {edge}"
    checks = ", ".join(f"{name} {value}" for name, value in answer["checks"].items())
    ready = answer["ready"] or "ready"
    wrong = "" if ready == "ready" else "the service is degraded"
    return f"{ready} ({checks})" if checks else ready, wrong
