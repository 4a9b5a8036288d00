"""A site with several edges: what each serves, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from roles.status.logic import model
from roles.status.logic.model import Findings, Problem, Rank


def others(findings: Findings) -> list[str]:
    """Return the edges that follow the lead."""
    return list(findings["zones"].get("dmz") or [])[1:]


def said_by(findings: Findings, host: str) -> Mapping[str, Any]:
    """Return what the agent of an edge reports; empty without an answer."""
    if host == model.edge_host(findings):
        return model.edge_of(findings)
    said = model.facts_of(findings, host).get("edge") or {}
    return said if isinstance(said, Mapping) and said.get("installed") else {}


def unfit(said: Mapping[str, Any]) -> str:
    """Return why the watch of an edge holds it unfit for traffic; empty when it does not."""
    seen = said.get("edges")
    return str(seen.get("unfit") or "") if isinstance(seen, Mapping) else ""


def rows(findings: Findings, edge: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return edge: what it serves, for machines; empty on a site with one edge."""
    if not edge or not others(findings):
        return {}
    found = {}
    for host in (model.edge_host(findings), *others(findings)):
        said = said_by(findings, host)
        found[host] = {
            name: said.get(name) for name in ("generation", "active", "standby", "release")
        } | {"lead": host == model.edge_host(findings), "unfit": unfit(said)}
    return found


def facts_of(findings: Findings, edge: Mapping[str, Any]) -> list[str]:
    """Return a line for each edge; none on a site with one edge."""
    lines = []
    for host, one in rows(findings, edge).items():
        what = f"generation {one['generation']}, {one['active']} active, release {one['release']}"
        part = "leads" if one["lead"] else "follows"
        lines.append(f"edge {host}, which {part}: {what if one['generation'] else 'no answer'}")
    return lines


def of_edges(findings: Findings, edge: Mapping[str, Any]) -> Iterator[Problem]:
    """Return the edges that do not answer, differ from the lead, or may take no traffic."""
    lead = model.edge_host(findings)
    for host, one in rows(findings, edge).items():
        asked = host in findings["asked"]
        said = said_by(findings, host)
        if asked and not said and model.facts_of(findings, host):
            found = f"{host} serves nothing yet: it is a new edge"
            yield Problem(Rank.WARNING, host, found, limit=False)
        elif why := one["unfit"]:
            command = why.partition("run here: ")[2]
            before = f"on {host}, run {command}" if command else ""
            found = f"the edge {host} may take no traffic: {why.partition('; to take over')[0]}"
            yield Problem(Rank.EDGE, host, found, fix="" if command else "install.yml",
                          before=before, limit=False)  # fmt: skip
        elif said and different(said, edge):
            found = (
                f"{host} serves generation {said['generation']} ({said['active']}), {lead} "
                f"generation {edge['generation']} ({edge['active']})"
            )
            yield Problem(Rank.EDGE, host, found, limit=False)
        if host != lead and said:
            yield from of_nginx(host, said)
            yield from of_ways(findings, host, str(edge["active"]))


def of_ways(findings: Findings, host: str, active: str) -> Iterator[Problem]:
    """Return the replicas that the lead reaches and this edge does not."""
    ways, leads = (
        model.facts_of(findings, one).get("answers") or {}
        for one in (host, model.edge_host(findings))
    )
    for app in model.app_hosts(findings):
        name = f"app-{active} on {app}"
        mine, other = ways.get(name), leads.get(name)
        if mine and mine["error"] and not (other and other["error"]):
            found = f"{host} cannot reach {name}"
            yield Problem(Rank.REPLICA, app, found, str(mine["error"]), service=f"app-{active}")


def different(said: Mapping[str, Any], edge: Mapping[str, Any]) -> bool:
    """Return whether two edges send requests to different places."""
    names = ("generation", "active", "standby", "release", "serial")
    drained = [set(one.get("drained") or {}) for one in (said, edge)]
    return drained[0] != drained[1] or any(said.get(one) != edge.get(one) for one in names)


def of_nginx(host: str, said: Mapping[str, Any]) -> Iterator[Problem]:
    """Return whether Nginx of an edge that follows serves something else, and its watch."""
    if said["served_generation"] != said["live_generation"]:
        found = (
            f"Nginx serves generation {said['served_generation']}, "
            f"the disk holds {said['live_generation']}"
        )
        yield Problem(Rank.STATE, host, found)
    watcher = said.get("watcher")
    if isinstance(watcher, Mapping) and watcher.get("alive") is False:
        found = f"the watcher on {host} does not run, so a failing replica would get requests"
        yield Problem(Rank.EDGE, host, found)
