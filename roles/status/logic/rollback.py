"""Whether a rollback is possible, to which release, how fast and until when, as seen now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from roles.preflight.filter_plugins.preflight import preflight_lacking
from roles.status.logic import flows, model
from roles.status.logic.model import Findings, Problem, Rank


class Target(NamedTuple):
    """The report's line, whether a rollback takes seconds, and what blocks it."""

    line: str
    warm: bool
    problems: list[Problem]


def faults_of_standby(
    findings: Findings, edge: Mapping[str, Any], component: Mapping[str, Any] | None
) -> Iterator[tuple[str, str, str]]:
    """Return (host, fault, last error) for everything that keeps the standby from serving at once.

    `component` is the image that it must run; None when only its health matters.
    """
    colour, release = edge["standby"], str(edge["previous_release"])
    name = f"app-{colour}"
    for host in model.app_hosts(findings):
        facts = model.facts_of(findings, host)
        one = model.container_of(facts, name)
        answer, from_edge = flows.replica(findings, host, colour)
        if not facts:
            yield host, f"{host} was not checked or did not answer", ""
        elif not one:
            yield host, f"{name} is missing on {host}", ""
        elif one["state"] != "healthy":
            yield host, f"{name} on {host} is {one['state']}", one["said"]
        elif component and model.image_of(component, facts) != one["image"]:
            yield host, f"{name} on {host} runs another image than that of {release}", ""
        elif facts["differences"]:
            other = f"app-{edge['active']}"
            what = ", ".join(facts["differences"])
            yield host, f"{name} on {host} was started with other values than {other}: {what}", ""
        elif why := flows.refused(findings, host, name):
            yield host, f"{name} on {host} cannot log in", why
        elif out := flows.taken_out(findings, host, colour):
            yield host, f"{name} on {host} does not answer the edge", str(out.get("why") or "")
        elif not answer or answer["error"]:
            whom = "the edge" if from_edge else "its host"
            reason = str(answer["error"]) if answer else ""
            yield host, f"{name} on {host} does not answer {whom}", reason
        elif answer["status"] != 200:
            yield host, f"{name} on {host} is not ready", model.wrong_checks(answer)
        elif answer["release"] not in {"", release}:
            yield host, f"{name} on {host} answers as release {answer['release']}", ""


def without_image(findings: Findings, component: Mapping[str, Any]) -> list[str]:
    """Return the app hosts that report that they lack the image."""
    return [
        host
        for host in model.app_hosts(findings)
        if (facts := model.facts_of(findings, host))
        and model.image_of(component, facts) not in facts["images"]
    ]


def none(why: str, findings: Findings, before: str = "") -> Target:
    """Return that no rollback is possible; no playbook can change that."""
    host = model.edge_host(findings)
    found = f"no rollback is possible: {why}"
    problem = Problem(Rank.WARNING, host, found, fix="", before=before)
    return Target(f"rollback: none, {why}", warm=False, problems=[problem])


def cold(findings: Findings, release: str, component: Mapping[str, Any]) -> Target:
    """Return the rollback from images, which the hosts or the jump host must have."""
    lacking = without_image(findings, component)
    if not lacking:
        silent = [one for one in model.app_hosts(findings) if not model.facts_of(findings, one)]
        late = f"; unknown for {', '.join(silent)}" if silent else ""
        line = f"rollback: {release} from its images, takes a minute or two{late}"
        return Target(line, warm=False, problems=[])
    store = preflight_lacking({"components": {"app": component}}, findings["store"])
    hosts = ", ".join(lacking)
    if not store:
        line = f"rollback: {release} from its images, after delivery to {hosts}, takes minutes"
        return Target(line, False, [])
    why = f"neither {hosts} nor this jump host has the image of {release}"
    return none(why, findings, before=f"import the bundle of {release} again")


def not_created_again(findings: Findings, edge: Mapping[str, Any]) -> Iterator[Problem]:
    """Return a warning if a change of settings ended before it created the standby again."""
    if edge.get("warm_until") and not edge.get("standby"):
        found = (
            f"the standby ({edge['previous_release']}, to be warm until {edge['warm_until']}) was "
            "not created again after a change of settings"
        )
        yield Problem(Rank.WARNING, model.edge_host(findings), found, limit=False)


def target_of(findings: Findings, edge: Mapping[str, Any]) -> Target:
    """Return whether a rollback is possible, from what was seen now."""
    release, standby = edge.get("previous_release"), edge.get("standby")
    if not release:
        return Target("rollback: none, this is the first release on this site", False, [])
    if edge["previous_serial"] > edge["serial"]:
        faults = list(faults_of_standby(findings, edge, None)) if standby else []
        waits = f" ({standby}, warm until {edge['warm_until']})" if standby and not faults else ""
        line = "rollback: none (already rolled back); go forward with upgrade.yml"
        line = f"{line} to {release}{waits}"
        problems = [*problems_of(findings, edge, faults), *not_created_again(findings, edge)]
        return Target(line, False, problems)
    manifest = model.manifest_of(findings, release)
    if not manifest:
        return none(
            f"{release} is no longer on this jump host; import its bundle again",
            findings,
            before=f"import the bundle of {release} again",
        )
    said = flows.database_of(findings)
    if "lowest_compatible" not in said:
        why = "does not answer" if said or everyone_asked(findings) else "was not checked"
        return Target(f"rollback: unknown, the database {why}", False, [])
    if said["lowest_compatible"] > manifest["schema"]["head"]:
        return none(f"the database's schema is too new for {release}", findings)
    component = manifest["components"]["app"]
    found = cold(findings, release, component)
    if not standby:
        return Target(found.line, False, [*not_created_again(findings, edge), *found.problems])
    faults = list(faults_of_standby(findings, edge, component))
    if not faults:
        late = " (over; end it with retire.yml)" if edge["warm_until"] < edge["now"] else ""
        line = (
            f"rollback: {release} ({standby}), warm until {edge['warm_until']}{late}, takes seconds"
        )
        return Target(line, True, [])
    not_warm = "; ".join(fault for _, fault, _ in faults)
    problems = [*problems_of(findings, edge, faults), *found.problems]
    return Target(f"{found.line}; not warm: {not_warm}", False, problems)


def problems_of(
    findings: Findings, edge: Mapping[str, Any], faults: list[tuple[str, str, str]]
) -> Iterator[Problem]:
    """Return the faults of a standby as warnings: an installation repairs or retires it.

    A host that did not answer is another problem already, or was excluded on purpose.
    """
    for host, fault, said in faults:
        if not model.facts_of(findings, host):
            continue
        found = f"the standby cannot serve at once: {fault}"
        yield Problem(
            Rank.WARNING, host, found, said, limit=False, service=f"app-{edge['standby']}"
        )


def everyone_asked(findings: Findings) -> bool:
    """Return whether --limit excluded no host."""
    return set(model.hosts_of(findings)) <= set(findings["asked"])
