"""Hosts and their containers: the table, and their problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bundle.core.text import table
from roles.status.logic import model
from roles.status.logic.model import Facts, Findings, Problem, Rank, Row

COLUMNS = ("HOST", "SERVICE", "RELEASE", "COLOUR", "IMAGE", "HEALTH", "UPTIME")
#: With this many recent restarts, a container counts as unstable.
RESTARTS = 3
LATELY = 120
#: A disk counts as full above this percentage; Prometheus warns earlier.
FULL = 95
#: Restart policies that start a container after a reboot.
STAYING = frozenset({"unless-stopped", "always"})
#: States of a container whose process has ended.
DOWN = frozenset({"exited", "dead", "restarting", "removing"})
Known = Mapping[str, Mapping[str, Any]]


def known_releases(findings: Findings, edge: Mapping[str, Any]) -> Known:
    """Return release: components; "" is the active release, if this jump host has its manifest."""
    served = model.manifest_of(findings, edge.get("release"))
    before = model.manifest_of(findings, edge.get("previous_release"))
    known: dict[str, Mapping[str, Any]] = {findings["release"]: findings["components"]}
    if before:
        known[str(edge["previous_release"])] = before["components"]
    if served:
        known[""] = known[str(edge["release"])] = served["components"]
    elif edge.get("release") == findings["release"]:
        known[""] = findings["components"]
    return known


def wanted_services(findings: Findings, host: str, active: str) -> list[str]:
    """Return the services that a host should run and that the release has an image for."""
    zones = [zone for zone, hosts in findings["zones"].items() if host in hosts]
    names = [name for zone in [*zones, "all"] for name in findings["expected"].get(zone, [])]
    services = [name.replace("COLOUR", active) for name in names]
    return [name for name in services if name not in findings["absent"]]


def duration(seconds: int) -> str:
    """Return a duration in its largest fitting unit."""
    for size, unit in ((172_800, "day"), (7200, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // {"day": 86_400, "hour": 3600, "minute": 60}[unit]
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"


def uptime(one: Mapping[str, Any]) -> tuple[str, int | None]:
    """Return how long a container has run, for people and in seconds, or that it is down."""
    if one["state"] == "created":
        return "-", None
    if one["state"] in DOWN:
        return f"down {duration(one['seconds'])}", None
    return duration(one["seconds"]), int(one["seconds"])


def times(count: int) -> str:
    """Return a count as a frequency."""
    return "once" if count == 1 else f"{count} times"


def image_word(container: Mapping[str, Any], facts: Facts, known: Known, *, wanted: bool) -> str:
    """Return ok, other, or ? when the right image is unknown."""
    # The standby is of another release; everything that should run is of the active release.
    components = known.get("") if wanted else known.get(container["release"], known.get(""))
    component = (components or {}).get(container["component"])
    if component is None:
        return "?" if components is None else "other"
    return "ok" if model.image_of(component, facts) == container["image"] else "other"


def of_container(host: str, one: Mapping[str, Any], image: str) -> Iterator[Problem]:
    """Return what is wrong with a container that should run."""
    service, state = one["service"], one["state"]
    rank = Rank.DATA if service in {"postgres", "redis"} else Rank.SERVICE
    if state == "restarting" or (one["restarts"] >= RESTARTS and one["seconds"] < LATELY):
        found = f"{service} on {host} keeps restarting ({times(one['restarts'])} so far)"
        yield Problem(rank, host, found, one["said"], service=service)
    elif state not in model.WELL:
        found = f"{service} on {host} is {state}"
        yield Problem(rank, host, found, one["said"], service=service)
    elif image == "other":
        found = f"{service} on {host} runs another image than that of this release"
        yield Problem(rank, host, found)
    elif one["restart_policy"] not in STAYING:
        found = f"{service} on {host} would not start after a reboot"
        yield Problem(rank, host, found)


def of_host(host: str, facts: Facts) -> Iterator[Problem]:
    """Return the problems of forwarding and storage on a host, present or soon."""
    for disk in facts["disks"]:
        if disk["percent"] >= FULL:
            found = f"{disk['path']} on {host} is {disk['percent']} % full"
            yield Problem(Rank.RULES, host, found, fix="status.yml", before=f"free space on {host}")
    if not facts["forwarding"]:
        found = (
            f"{host} does not forward packets (net.ipv4.ip_forward is 0), so other hosts cannot "
            "reach its containers"
        )
        yield Problem(Rank.RULES, host, found)
    rules = facts["engine_rules"]
    if rules["missing"]:
        ports = ", ".join(map(str, rules["missing"]))
        found = f"the container engine's rules for port {ports} are missing on {host}"
        yield Problem(Rank.RULES, host, found)
    elif rules["blocked"]:
        yield Problem(Rank.RULES, host, f"the container engine's rules are missing on {host}")
    table = facts["firewall"]["table"]
    words = {
        "missing": "is missing",
        "different": "differs from the rules that were confirmed",
        "unconfirmed": "was never confirmed",
    }
    if table:
        yield Problem(Rank.RULES, host, f"the firewall table of {host} {words[table]}")
    elif not facts["firewall"]["enabled"]:
        yield Problem(Rank.RULES, host, f"the firewall of {host} would not be loaded at boot")


def host_lines(
    findings: Findings, host: str, active: str, known: Known
) -> tuple[list[Row], list[Problem]]:
    """Return a host's table rows and its problems."""
    said, facts = model.answer_of(findings, host), model.facts_of(findings, host)
    out = host in model.drained_of(findings)
    if out and (not facts or facts["engine"]["error"]):
        return [Row(host, "-", "-", "-", "-", "drained", "-")], []
    if said.get("unreachable"):
        before = "bring the host back"
        problem = Problem(Rank.HOST, host, f"{host} cannot be reached over SSH", before=before)
        return [Row(host, "-", "-", "-", "-", "unreachable", "-")], [problem]
    if said.get("late"):
        before = f"check the load of {host} and the network path to it"
        found = f"{host} did not answer within {said['late']} s"
        problem = Problem(Rank.HOST, host, found, before=before)
        return [Row(host, "-", "-", "-", "-", "no answer", "-")], [problem]
    why = str(facts["engine"]["error"]) if facts else str(said.get("msg", "no reason given"))
    problems = list(of_host(host, facts)) if facts else []
    if why:
        found = f"no container engine answers on {host}"
        said_last = " ".join(why.split())[:200]
        problems.insert(0, Problem(Rank.HOST, host, found, said_last))
        return [Row(host, "-", "-", "-", "-", "no engine", "-")], problems
    rows = []
    wanted = wanted_services(findings, host, active)
    there = {one["service"]: one for one in facts["containers"]}
    for service in [*wanted, *sorted(set(there) - set(wanted))]:
        if service not in there and out:
            continue
        if service not in there:
            rows.append(Row(host, service, "-", "-", "-", "missing", "-"))
            rank = Rank.DATA if service in {"postgres", "redis"} else Rank.SERVICE
            found = f"{service} is missing on {host}"
            problems.append(Problem(rank, host, found, service=service))
            continue
        one = there[service]
        image = image_word(one, facts, known, wanted=service in wanted)
        release = one["release"] or one["version"] or "-"
        rows.append(
            Row(
                *(host, service, release, one["colour"] or "-", image, one["state"]),
                *uptime(one),
            )
        )
        if service in wanted:
            problems += of_container(host, one, image)
    return rows, problems


def nothing_installed(findings: Findings) -> bool:
    """Return whether all hosts answer and none has a part of a site."""
    anything = any(
        model.answer_of(findings, host).get("unreachable")
        or model.answer_of(findings, host).get("late")
        or model.facts_of(findings, host).get("containers")
        for host in model.asked(findings)
    )
    return not (anything or model.edge_of(findings))


def lines_of(rows: Sequence[Row]) -> str:
    """Return the table; a host's name is only on its first line."""
    cells, last = [COLUMNS], ""
    for row in rows:
        # Without the last field, which is for machines.
        cells.append(("" if row.host == last else row.host, *row[1:-1]))
        last = row.host
    return table(cells)
