"""Filters that make the plan of an upgrade or a rollback, and list what blocks it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# The release directory, from which `bundle` is imported on the controller.
RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from bundle.core.text import facts, size  # noqa: E402
from bundle.format.versions import order  # noqa: E402
from roles.swap.filter_plugins.swap_edges import older_record, without_lead  # noqa: E402

Findings = Mapping[str, Any]


def other_than(active: str, found: Findings) -> str:
    """Return the colour that is not active."""
    return next(str(colour) for colour in found["colours"] if colour != active)


def problems_of_release(found: Findings, edge: Mapping[str, Any]) -> list[str]:
    """Return why this release may not follow the active release."""
    new, old = found["new"], found["old"]
    named = f"{new['version']} (serial {new['serial']})"
    serves = f"{edge['release']} (serial {edge['serial']})"
    if new["serial"] <= edge["serial"]:
        return [
            f"this is release {named}, the site serves {serves}: an upgrade never goes back. To "
            f"return to the previous release, run {found['command']}rollback.yml"
        ]
    rule, problems = new["upgrade"], []
    if order(edge["release"]) < order(rule["minimum_version"]):
        problems.append(
            f"release {named} can follow {rule['minimum_version']} or later, the site serves "
            f"{serves}: import and upgrade to {rule['minimum_version']} first"
        )
    stops = [
        stop
        for stop in sorted(rule["required_stops"], key=order)
        if order(edge["release"]) < order(stop) < order(new["version"])
    ]
    if stops:
        problems.append(
            f"an upgrade from {edge['release']} to {new['version']} has to stop at "
            f"{', '.join(stops)}: import and upgrade to {stops[0]} first"
        )
    if old and old["image_source"] != new["image_source"]:
        problems.append(
            f"the images of {serves} came from the source {old['image_source']}, those of {named} "
            f"from {new['image_source']}: ask the vendor for a bundle built with --source "
            f"{old['image_source']}"
        )
    return problems


def problems_of_sources(found: Findings) -> list[str]:
    """Return which sources no client could use any more, and the setting that allows clients."""
    sources = found["sources"]
    if not sources["unlisted"]:
        return []
    return [
        f"no client could use {', '.join(sources['unlisted'])} after the upgrade, because "
        "app_source_clients does not list it: in group_vars/all/main.yml, set this or a shorter "
        f"list: {sources['setting']}"
    ]


def problems_of_schema(found: Findings, edge: Mapping[str, Any]) -> list[str]:
    """Return why the database's schema forbids the upgrade."""
    new, old, database = found["new"]["schema"], found["old"], found["database"]
    problems = []
    if not database:
        problems.append(
            "the database does not answer, so its schema is unknown: find the cause with "
            f"{found['command']}status.yml"
        )
    elif database["lowest_compatible"] > new["head"]:
        problems.append(
            f"the database has schema {database['version']}, which supports releases of schema "
            f"{database['lowest_compatible']} or later; this release has schema {new['head']}: ask "
            "the vendor for a newer release"
        )
    if old and new["lowest_compatible"] > old["schema"]["head"]:
        problems.append(
            f"the migrations to schema {new['head']} would break release {edge['release']} (schema "
            f"{old['schema']['head']}) while it still serves: a release between is needed, whose "
            f"schema is {new['lowest_compatible']} or later"
        )
    return problems


def problem_of_edge(found: Findings) -> str:
    """Return why the edge does not report what the site serves; empty when it does."""
    edge, why = found["edge"], str(found["edge"].get("msg") or "no reason given")
    # Without an agent nothing was ever installed.
    if edge.get("installed") is False or why.startswith("there is no "):
        return f"nothing is installed here yet: run {found['command']}install.yml"
    if "installed" not in edge:
        return f"the swap agent on the edge does not answer: {why}{without_lead(found)}"
    return older_record(found)


def problems_of_hosts(found: Findings) -> list[str]:
    """Return the hosts that do not answer, or whose engine does not."""
    problems = []
    for host, said in found["hosts"].items():
        if not said["answered"]:
            problems.append(f"{host} does not answer ({said['said']}): bring it back")
        elif said["result"]["error"]:
            problems.append(
                f"the container engine of {host} does not answer ({said['result']['error']}): find "
                f"the cause with {found['command']}status.yml"
            )
    return problems


def problems_of(found: Findings, *, already: bool) -> list[str]:
    """Return everything that blocks the upgrade."""
    edge = found["edge"]
    if problem := problem_of_edge(found):
        return [problem]
    problems = problems_of_hosts(found)
    if already or problems:
        return problems
    if not found["old"]:
        problems.append(
            f"the active release, {edge['release']}, is no longer on this jump host, so no "
            "rollback would be possible: import its bundle again"
        )
    problems += [
        f"{host} has {size(one['free'])} free for images, the release needs {size(one['disk'])}: "
        f"free space on {host}"
        for host, one in found["images"].items()
        if one["disk"] > one["free"]
    ]
    problems += problems_of_sources(found)
    return problems + problems_of_release(found, edge) + problems_of_schema(found, edge)


def kept_backup(found: Findings) -> str:
    """Return the backup that a new one would replace: made before migrations that are done now."""
    label = f"{found['edge']['release']}-to-{found['new']['version']}-"
    there = [
        name.removesuffix(".json")
        for said in found["hosts"].values()
        for name in said["result"]["backups"]
        if name.startswith(label)
    ]
    migrated = found["database"]["version"] >= found["new"]["schema"]["head"]
    return max(there) if there and migrated else ""


def backup_of(found: Findings) -> str:
    """Describe the backup that the upgrade makes or keeps."""
    if name := kept_backup(found):
        return f"{name}, made before the migrations, is kept; no new one, the schema stays"
    return f"database of {size(found['database']['bytes'])}, test-restored and compared"


def different(found: Findings) -> dict[str, list[str]]:
    """Return host: the components, but the service, that run another image than the release's."""
    # The image store of a host decides which of the two digests names an image.
    wanted = {
        name: (one["manifest_digest"], one["config_digest"])
        for name, one in found["new"]["components"].items()
    }
    return {
        host: sorted(
            name
            for name, image in said["result"]["components"].items()
            if name != "app" and image not in wanted.get(name, ())
        )
        for host, said in found["hosts"].items()
    }


def rows_of(found: Findings, target: str) -> list[tuple[str, str]]:
    """Return what will happen, step by step."""
    edge, new, database = found["edge"], found["new"], found["database"]
    brought = {host: one for host, one in found["images"].items() if one["bytes"]}
    images = ", ".join(f"{host} {size(one['bytes'])}" for host, one in brought.items())
    disk = ", ".join(
        f"{host} {size(one['disk'])} of {size(one['free'])} free" for host, one in brought.items()
    )
    seconds = max((one["seconds"] for one in brought.values()), default=0)
    head = new["schema"]["head"]
    schema = f"{database['version']}, unchanged"
    if database["version"] < head:
        schema = (
            f"from {database['version']} to {head}; supports releases of schema "
            f"{new['schema']['lowest_compatible']} or later, so {edge['release']} keeps serving"
        )
    rows = [
        ("release", f"{edge['release']} (serial {edge['serial']}) to {new['version']}"),
        ("images", images or "all present"),
        ("backup", backup_of(found)),
        ("schema", schema),
        (
            "new colour",
            f"{target} on {', '.join(found['app_hosts'])}; {edge['active']} keeps serving",
        ),
        ("gates", "old colour on the new schema; new colour ready; requests through the preview"),
        ("switch", f"{edge['active']} to {target}; requests in progress are finished"),
        ("workers", f"{target} starts; {edge['active']} finishes its jobs and stops"),
        ("rollback", f"{edge['active']} stays warm for {found['hours']} h: rollback.yml"),
    ]
    if brought:
        rows[2:2] = [("disk", disk), ("transfer", f"about {seconds:.0f} s")]
    if access := found["sources"]["access"]:
        rows.insert(-5, ("sources", "; ".join(f"{name}: {who}" for name, who in access.items())))
    if edge.get("standby"):
        gone = f"{edge['previous_release']} ({edge['standby']}) will be replaced"
        rows.insert(-5, ("standby", gone))
    if text := "; ".join(
        f"{host}: {', '.join(parts)}" for host, parts in different(found).items() if parts
    ):
        later = f"in a maintenance window, run {found['command']}install.yml"
        rows.append(("not now", f"the other images of {text}: {later}"))
    return rows


def swap_plan(found: Findings) -> dict[str, Any]:
    """Return the plan of an upgrade.

    Its keys: `active` and `release`, the active colour and release; `target`, the colour to
    activate; `already`, whether this release is active; `images` and `backup`, whether there is
    something to deliver and to back up; `problems`; and `lines`, the text for the operator.
    """
    edge, new = found["edge"], found["new"]
    already = (edge.get("release"), edge.get("serial")) == (new["version"], new["serial"])
    problems = problems_of(found, already=already)
    active = edge.get("active", found["colours"][0])
    target = active if already else other_than(active, found)
    if problems:
        lines = problems
    elif already:
        lines = [
            f"{found['site']} already serves release {new['version']}; the remaining steps follow"
        ]
    else:
        lines = [f"{found['site']}:", *facts(rows_of(found, target)).splitlines()]
    return {
        "active": active,
        "release": edge.get("release"),
        "target": target,
        "already": already,
        "images": not problems and any(one["delivered"] for one in found["images"].values()),
        "backup": not problems and not already and not kept_backup(found),
        "problems": problems,
        "lines": lines,
    }


def swap_way_back(found: Findings) -> dict[str, Any]:
    """Return the plan of a rollback, in the form of swap_plan.

    Further keys: `to`, the previous release and its serial; `warm`, whether it can serve at once on
    every app host that answers; `silent`, the app hosts and edges that do not answer; `abandon`,
    whether an upgrade was interrupted before its switch, so that only the clean-up is left.
    """
    edge, database, old = found["edge"], found["database"], found["old"]
    left = [one for one in edge.get("unfinished", []) if one["step"] in ("upgrade", "rollback")]
    # Of several interrupted runs, the last one has the site's target.
    nothing: dict[str, Any] = {"step": "", "data": {}}
    last = max(left, key=lambda one: int(one["seq"]), default=nothing)
    active = edge.get("active", found["colours"][0])
    plan: dict[str, Any] = {"active": active, "release": edge.get("release"), "already": False}
    plan |= {"abandon": False, "problems": [], "warm": False, "silent": []}
    other = other_than(active, found)
    if problem := problem_of_edge(found):
        return plan | {"target": other, "to": {}, "problems": [problem], "lines": []}
    silent, cold = standbys_of(found)
    gone = [name for name in found.get("silent_edges") or [] if name not in silent]
    plan |= {"silent": [*silent, *gone]}
    begun = last["data"]
    upgrades = {one["data"].get("release") for one in left if one["step"] == "upgrade"}
    # Also if the cancellation was interrupted: then the last run is a rollback of that release.
    if begun and begun.get("release") in upgrades - {edge["release"]}:
        line = (
            f"the upgrade to {begun.get('release')} had not switched: {edge['release']} keeps "
            "serving, and the incomplete upgrade is cleaned up"
        )
        return plan | {"target": other, "to": begun, "abandon": True, "lines": [line]}
    if last["step"] == "rollback" and begun.get("release") == edge["release"]:
        line = f"{edge['release']} already serves again; the remaining steps follow"
        return plan | {"target": active, "to": begun, "already": True, "lines": [line]}
    to = {"release": edge["previous_release"], "serial": edge["previous_serial"]}
    warm = edge["standby"] == other and not cold
    plan |= {"target": other, "to": to, "warm": warm}
    plan["problems"] = problems_of_way_back(found, to, old, database)
    if len(silent) == len(found["standbys"]):
        plan["problems"].append(
            f"no app host answers ({', '.join(silent)}): bring one back, then run the same command "
            "again"
        )
    how = "which is warm" if warm else "from its pinned images"
    plan["lines"] = [
        f"{found['site']}: roll back from {edge['release']} ({active}) to {to['release']} "
        f"({other}), {how}",
        *(f"{host}: {why}" for host, why in cold.items() if edge["standby"] == other),
        *(f"{host} does not answer and is not changed" for host in silent),
        *(
            f"{host} does not answer and is not changed: it takes over what {found['edges'][0]} "
            "serves when it is back"
            for host in gone
        ),
    ]
    return plan


def swap_unneeded(
    images: Mapping[str, Sequence[str]], folder: str, releases: Sequence[str]
) -> list[str]:
    """Return a host's images that a release has but none of these releases needs.

    `images` is image: its names. If one of the manifests is missing, the result is empty.
    """
    paths = [Path(folder, release, "manifest.json") for release in releases]
    if not all(path.is_file() for path in paths):
        return []
    kept = [one for path in paths for one in json.loads(path.read_text())["components"].values()]
    digests = {one[name] for one in kept for name in ("manifest_digest", "config_digest")}
    repositories = tuple(re.escape(one["repository"]) for one in kept)
    # The name may follow a registry's address, and a tag or a digest may follow it.
    ours = re.compile(rf"(127\.0\.0\.1:\d+/)?({'|'.join(repositories)})[:@]")
    return [
        image
        for image, names in images.items()
        if image not in digests and any(ours.match(name) for name in names)
    ]


def standbys_of(found: Findings) -> tuple[list[str], dict[str, str]]:
    """Return the app hosts that do not answer, and those whose standby cannot serve with reason."""
    silent, cold = [], {}
    for host, said in found["standbys"].items():
        if not said.get("answered"):
            silent.append(host)
        elif problem := said["result"]["problem"]:
            cold[host] = problem
    return silent, cold


def problems_of_way_back(
    found: Findings, to: Mapping[str, Any], old: Mapping[str, Any], database: Mapping[str, Any]
) -> list[str]:
    """Return why the previous release cannot serve again."""
    if not to["release"]:
        return [
            f"{found['edge']['release']} is the first release on this site: there is no previous "
            "release"
        ]
    if to["serial"] > found["edge"]["serial"]:
        return [
            f"the site was already rolled back to {found['edge']['release']}; to return to "
            f"{to['release']}, run {found['command']}upgrade.yml"
        ]
    if not old or old["serial"] != to["serial"]:
        return [
            f"release {to['release']} (serial {to['serial']}) is no longer on this jump host: "
            "import its bundle again"
        ]
    if not database:
        return [
            "the database does not answer, so it is unknown whether its schema allows a rollback: "
            f"find the cause with {found['command']}status.yml"
        ]
    if database["lowest_compatible"] > old["schema"]["head"]:
        return [
            f"release {to['release']} has schema {old['schema']['head']}; the database has schema "
            f"{database['version']}, which supports releases of schema "
            f"{database['lowest_compatible']} or later. A rollback is impossible: upgrade to a "
            "release that fixes the fault"
        ]
    return []


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {
            "swap_plan": swap_plan,
            "swap_unneeded": swap_unneeded,
            "swap_way_back": swap_way_back,
        }
