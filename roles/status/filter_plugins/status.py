"""Filter that turns what the hosts said into a table, a sentence and the next command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

COLUMNS = ("HOST", "SERVICE", "RELEASE", "COLOUR", "IMAGE", "HEALTH", "SINCE")
#: What an operator runs, as the swap agent notes it.
VERBS = ("install", "upgrade", "rollback", "retire")
#: Characters of a reason that a line has room for.
REASON = 80
CONTAINERD_DRIVER = "io.containerd.snapshotter.v1"


class Row(NamedTuple):
    """One line of the table; `problem` is empty when all is well."""

    host: str
    service: str
    release: str
    colour: str
    image: str
    health: str
    since: str
    problem: str = ""


class Runs(NamedTuple):
    """What is to be said of runs: at work, cut off and how to go on, or failed."""

    facts: list[str]
    cut_off: str = ""
    #: The playbook that goes on, and whether rollback.yml would take away what was begun.
    following: str = ""
    give_up: bool = False
    at_work: bool = False


class Report(NamedTuple):
    """What is said below the table."""

    facts: list[str]
    problems: list[str]
    hosts: list[str]
    runs: Runs


def hosts_in_order(findings: Mapping[str, Any]) -> list[str]:
    """Return the hosts that were asked, in the order of the zones."""
    ordered = [host for hosts in findings["zones"].values() for host in hosts]
    return [host for host in dict.fromkeys(ordered) if host in findings["asked"]]


def edge_of(findings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the swap agent said; empty when no edge was asked or none answered."""
    for said in findings["edges"]:
        if isinstance(said, Mapping) and "installed" in said:
            return dict(said)
    return {}


def manifest_of(findings: Mapping[str, Any], release: str | None) -> dict[str, Any]:
    """Return the manifest of a release on this jump host; empty when it is not here."""
    path = Path(findings["releases_dir"], str(release), "manifest.json")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError:
        return {}


def images_of(findings: Mapping[str, Any], edge: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return release: components, of the release that serves (as "") and of the one before."""
    served = manifest_of(findings, edge.get("release"))
    before = manifest_of(findings, edge.get("previous_release"))
    known = {"": served.get("components", findings["components"])}
    if before:
        known[str(edge["previous_release"])] = before["components"]
    return known


def wanted_services(findings: Mapping[str, Any], host: str, active: str) -> list[str]:
    """Return the services that a host should run, without those the release has no image for."""
    zones = [zone for zone, hosts in findings["zones"].items() if host in hosts]
    names = [name for zone in [*zones, "all"] for name in findings["expected"].get(zone, [])]
    services = [name.replace("COLOUR", active) for name in names]
    return [name for name in services if name not in findings["absent"]]


def image_ids(components: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, str]:
    """Return component: image id, as this engine's image store counts."""
    store = dict(info.get("DriverStatus") or [])
    contained = store.get("driver-type") == CONTAINERD_DRIVER
    key = "manifest_digest" if contained else "config_digest"
    return {name: str(component[key]) for name, component in components.items()}


def health_of(container: Mapping[str, Any]) -> tuple[str, str]:
    """Return (health, since) from the engine's words, as in `Up 5 minutes (healthy)`."""
    said = str(container.get("Status", ""))
    since, _, health = said.removeprefix("Up ").partition(" (")
    if container.get("State") != "running":
        return str(container.get("State", "unknown")), since.lower()
    return health.rstrip(")").removeprefix("health: ") or "running", since


def container_row(
    host: str,
    container: Mapping[str, Any],
    wanted: Sequence[str],
    images: Mapping[str, Mapping[str, str]],
) -> Row:
    """Return the line of one container; `images` is release: component: id."""
    labels = container["Labels"]
    service, component = labels["airlift.service"], labels.get("airlift.component", "")
    health, since = health_of(container)
    release = labels.get("airlift.release") or labels.get("airlift.version", "-")
    # What stands by is of the release before; everything that should run is of the one that serves.
    known = images[""] if service in wanted else images.get(release, images[""])
    same = known.get(component) == container.get("ImageID")
    problem = ""
    if service in wanted:
        if health not in {"healthy", "running", "starting"}:
            problem = f"{service} on {host} is {health}"
        elif not same:
            problem = f"{service} on {host} runs another image than this release's"
    return Row(
        host,
        service,
        release,
        labels.get("airlift.colour", "-"),
        "ok" if same else "other",
        health,
        since,
        problem,
    )


def host_rows(
    findings: Mapping[str, Any],
    host: str,
    active: str,
    releases: Mapping[str, Mapping[str, Any]],
) -> Iterator[Row]:
    """Return the lines of one host."""
    said = findings["engines"].get(host)
    wanted = wanted_services(findings, host, active)
    said = said if isinstance(said, Mapping) else {}
    if said.get("unreachable"):
        problem = f"{host} cannot be reached over SSH"
        yield Row(host, "-", "-", "-", "-", "unreachable", "-", problem)
        return
    if "containers" not in said:
        problem = f"{host} has no container engine that answers"
        yield Row(host, "-", "-", "-", "-", "no engine", "-", problem)
        return
    info = said.get("host_info", {})
    images = {name: image_ids(components, info) for name, components in releases.items()}
    found = {container["Labels"]["airlift.service"]: container for container in said["containers"]}
    for service in [*wanted, *sorted(set(found) - set(wanted))]:
        if service in found:
            yield container_row(host, found[service], wanted, images)
        else:
            problem = f"{service} is missing on {host}"
            yield Row(host, service, "-", "-", "-", "missing", "-", problem)


def nothing_installed(findings: Mapping[str, Any], edge: Mapping[str, Any]) -> bool:
    """Say whether every host answers and none has anything of a site."""
    answers = [*findings["engines"].values(), *findings["edges"]]
    said = [answer for answer in answers if isinstance(answer, Mapping)]
    anything = any(answer.get("unreachable") or answer.get("containers") for answer in said)
    return not (anything or edge.get("installed"))


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table; a host's name stands only on its first line."""
    lines = [COLUMNS]
    last = ""
    for row in rows:
        lines.append(("" if row.host == last else row.host, *row[1:7]))
        last = row.host
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def service_answer(findings: Mapping[str, Any]) -> tuple[str, str]:
    """Return (what the service says through the edge, what is wrong with it)."""
    for said in findings["ready"]:
        if not isinstance(said, Mapping) or "status" not in said:
            continue
        body = said.get("json") or {}
        if said["status"] == 200:
            checks = ", ".join(
                f"{name} {value.get('status', value) if isinstance(value, Mapping) else value}"
                for name, value in (body.get("checks") or {}).items()
            )
            answer = f"{body.get('status', 'ready')} ({checks})" if checks else "ready"
            wrong = "" if body.get("status", "ready") == "ready" else "the service is degraded"
            return answer, wrong
        if said["status"] in {502, 503, 504}:
            return f"HTTP {said['status']}", "the service is not ready through the edge"
        return "no answer", "the edge does not answer"
    return "not asked", ""


def way_back(findings: Mapping[str, Any], edge: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return whether a rollback is possible, to what, how fast, and until when."""
    release, standby = edge.get("previous_release"), edge.get("standby")
    if not release:
        return "way back: none, this is the first release here"
    if edge["previous_serial"] > edge["serial"]:
        waits = f" ({standby}, warm until {edge['warm_until']})" if standby else ""
        return f"way back: none further, the rollback led here; forward: {release}{waits}"
    manifest = manifest_of(findings, release)
    if not manifest:
        return f"way back: none, {release} is no longer on this jump host; import its bundle again"
    for said in findings["databases"]:
        text = said.get("stdout") if isinstance(said, Mapping) else ""
        lowest = json.loads(text)["lowest_compatible"] if text else 0
        if lowest > manifest["schema"]["head"]:
            return f"way back: none, the database's schema is too new for {release}"
    warm = [row for row in rows if row.service == f"app-{standby}" and row.health == "healthy"]
    if standby and len(warm) == len(findings["zones"]["app"]):
        late = " (over; retire.yml stops it)" if edge["warm_until"] < edge["now"] else ""
        return f"way back: {release} ({standby}) is warm until {edge['warm_until']}{late}: seconds"
    return f"way back: {release}, from its images: a minute or two"


def runs_of(edge: Mapping[str, Any]) -> Runs:
    """Return what is to be said of the runs on this site."""
    last, lease = edge.get("last_run"), edge.get("lease")
    facts = []
    if last and last["event"] == "failed":
        what = f"{last['step']} to {last['data'].get('release', '?')}"
        facts.append(f"last run: {what}, failed at {last['time']}: {last['data'].get('why')}")
    begun = edge.get("unfinished", [])
    verbs = [record for record in begun if record["step"] in VERBS]
    # Of several that were cut off, the newest is what the site was on its way to.
    newest = max(verbs, key=lambda record: int(record["seq"]), default=None)
    if newest is None:
        return Runs(facts)
    steps = [one for one in begun if one["step"] not in VERBS and one["run"] == newest["run"]]
    step = max(steps, key=lambda record: int(record["seq"]), default=None)
    where = f" in step {step['step']}" if step else ""
    what = f"{newest['step']} to {newest['data'].get('release')}"
    if lease and edge.get("at_work", True):
        return Runs(
            [*facts, f"{lease['owner']} is at work: {what}{where}, since {newest['time']}"],
            at_work=True,
        )
    following = f"{newest['step']}.yml"
    back = following == "upgrade.yml" and not switched(edge, newest)
    return Runs(facts, f"{what} was cut off{where}: start it again", following, give_up=back)


def switched(edge: Mapping[str, Any], begun: Mapping[str, Any]) -> bool:
    """Say whether the release that a run was to bring serves already."""
    return bool(edge["release"] == begun["data"].get("release"))


def newer(findings: Mapping[str, Any], edge: Mapping[str, Any]) -> bool:
    """Say whether this directory's release is newer than what the site serves."""
    return bool(edge.get("installed")) and int(findings["serial"]) > int(edge["serial"])


def examine(findings: Mapping[str, Any], edge: Mapping[str, Any], rows: Sequence[Row]) -> Report:
    """Return what is to be said of the whole site."""
    answer, wrong = service_answer(findings)
    facts = [f"/health/ready through the edge: {answer}"]
    problems = [row.problem for row in rows if row.problem]
    if wrong:
        problems.append(wrong)
    runs = Runs([])
    if edge.get("installed"):
        facts.append(
            f"release {edge['release']} (serial {edge['serial']}), {edge['active']} active, "
            f"generation {edge['live_generation']}, since {edge['since']}"
        )
        facts.append(way_back(findings, edge, rows))
        runs = runs_of(edge)
        facts += runs.facts
        # The cause stands before its effects.
        problems = [*([runs.cut_off] if runs.cut_off else []), *problems]
        if edge["served_generation"] != edge["live_generation"]:
            problems.append(
                f"Nginx serves generation {edge['served_generation']}, "
                f"the disk holds {edge['live_generation']}"
            )
        if newer(findings, edge):
            facts.append(f"release {findings['release']} is here and can be upgraded to")
    facts += [f"absent: {name}: {reason_of(entry)}" for name, entry in findings["absent"].items()]
    hosts = list(dict.fromkeys(row.host for row in rows if row.problem))
    return Report(facts, problems, hosts, runs)


def reason_of(entry: object) -> str:
    """Return why a component is absent, in one line; preflight tells all of it."""
    reason = str(entry.get("reason", "")) if isinstance(entry, Mapping) else str(entry)
    return reason if len(reason) <= REASON else f"{reason[:REASON].rpartition(' ')[0]} …"


def next_command(findings: Mapping[str, Any], edge: Mapping[str, Any], report: Report) -> str:
    """Return what to type next when something is wrong."""
    if report.runs.following:
        on = f"{findings['command']}{report.runs.following}"
        return f"{on}, or rollback.yml to give it up" if report.runs.give_up else on
    limit = f" --limit {report.hosts[0]}" if len(report.hosts) == 1 else ""
    # Install repairs what serves, so from the directory of that release.
    elsewhere = edge.get("release", findings["release"]) != findings["release"]
    place = f"cd {findings['releases_dir']}/{edge['release']} && " if elsewhere else ""
    return f"{place}{findings['command']}install.yml{limit}"


def status_report(findings: Mapping[str, Any]) -> str:
    """Return the whole report as one text."""
    edge = edge_of(findings)
    active = str(edge.get("active", "blue"))
    releases = images_of(findings, edge)
    hosts = hosts_in_order(findings)
    rows = [row for host in hosts for row in host_rows(findings, host, active, releases)]
    report = examine(findings, edge, rows)
    site, command = findings["site"], findings["command"]
    everyone = set(findings["asked"]) >= {h for hosts in findings["zones"].values() for h in hosts}
    if report.runs.at_work:
        verdict = f"Site {site} serves release {edge['release']} ({active}) while it is worked on."
        following = f"Next: wait; look again with {command}status.yml"
    elif not report.problems:
        scope = "everything is as it" if everyone else "the hosts asked are as they"
        release = edge.get("release", findings["release"])
        verdict = f"Site {site} runs release {release}: {scope} should be."
        following = f"Next: {command}status.yml any time; a new bundle begins with its import."
        if newer(findings, edge):
            following = f"Next: {command}upgrade.yml --check shows what an upgrade would do."
    elif everyone and nothing_installed(findings, edge):
        verdict = f"Site {site} is not installed yet."
        following = f"Next: {command}install.yml"
    else:
        cause = report.problems[0]
        more = f", and {len(report.problems) - 1} more" if len(report.problems) > 1 else ""
        verdict = f"Site {site} needs attention: {cause}{more}."
        following = f"Next: {next_command(findings, edge, report)}"
        if any(row.health == "unreachable" for row in rows):
            following = "Next: bring the host back, then " + following.removeprefix("Next: ")
    first = 0 if report.runs.at_work else 1
    trouble = [f"  - {problem}" for problem in report.problems[first:]]
    return "\n".join([*table(rows), "", *report.facts, "", verdict, *trouble, following])


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {"status_report": status_report}
