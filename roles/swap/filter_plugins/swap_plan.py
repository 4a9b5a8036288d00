"""Filters that make the plan of an upgrade or a rollback, or say why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

COLOURS = ("blue", "green")
Findings = Mapping[str, Any]


def size(count: float) -> str:
    """Return bytes as people read them."""
    for unit in ("B", "kB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} MB" if count < 1000 else f"{count / 1000:.1f} GB"


def order(version: str) -> tuple[int, ...]:
    """Return what versions are compared by; a pre-release counts as its release."""
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def problems_of_release(found: Findings, edge: Mapping[str, Any]) -> list[str]:
    """Return why this release may not follow the one that serves."""
    new, old = found["new"], found["old"]
    named = f"{new['version']} (serial {new['serial']})"
    serves = f"{edge['release']} (serial {edge['serial']})"
    if new["serial"] <= edge["serial"]:
        return [
            f"this is release {named}, the site serves {serves}: an upgrade never goes back. To "
            f"return to the release before, run {found['command']}rollback.yml"
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
            f"between {edge['release']} and {new['version']} the site has to stop at "
            f"{', '.join(stops)}: import and upgrade to {stops[0]} first"
        )
    if old and old["image_source"] != new["image_source"]:
        problems.append(
            f"the images of {serves} came from the source {old['image_source']}, those of {named} "
            f"from {new['image_source']}: ask for a bundle built with --source "
            f"{old['image_source']}"
        )
    return problems


def problems_of_sources(found: Findings) -> list[str]:
    """Return which sources nobody could use any more, and the setting that says who may."""
    sources = found["sources"]
    if not sources["unlisted"]:
        return []
    return [
        f"nobody could use {', '.join(sources['unlisted'])} after it, because app_source_clients "
        f"does not list it: write into group_vars/all/main.yml, or less: {sources['setting']}"
    ]


def problems_of_schema(found: Findings, edge: Mapping[str, Any]) -> list[str]:
    """Return why the database's schema forbids the upgrade."""
    new, old, database = found["new"]["schema"], found["old"], found["database"]
    problems = []
    if not database:
        problems.append("the database does not answer, so its schema is not known")
    elif database["lowest_compatible"] > new["head"]:
        problems.append(
            f"the database's schema is {database['version']} and serves releases of schema "
            f"{database['lowest_compatible']} or later; this release is of schema {new['head']}"
        )
    if old and new["lowest_compatible"] > old["schema"]["head"]:
        problems.append(
            f"the migrations to schema {new['head']} would break release {edge['release']} (schema "
            f"{old['schema']['head']}) while it still serves: a release between is needed, whose "
            f"schema is {new['lowest_compatible']} or later"
        )
    return problems


def problems_of(found: Findings, *, already: bool) -> list[str]:
    """Return everything that stands against the upgrade."""
    edge = found["edge"]
    if not edge:
        return [f"nothing is installed here yet: run {found['command']}install.yml"]
    if already:
        return []
    problems = []
    if not found["old"]:
        problems.append(
            f"the release that serves, {edge['release']}, is no longer on this jump host, so there "
            "would be no way back: import its bundle again"
        )
    problems += [
        f"{host} has {size(one['free'])} free for images, the release needs {size(one['disk'])}: "
        f"free some there"
        for host, one in found["images"].items()
        if one["disk"] > one["free"]
    ]
    problems += problems_of_sources(found)
    return problems + problems_of_release(found, edge) + problems_of_schema(found, edge)


def backup_of(found: Findings) -> str:
    """Return which backup there will be."""
    database, there = found["database"], sorted(found["backups"])
    if there and database["version"] >= found["new"]["schema"]["head"]:
        name = there[-1].rpartition("/")[2].removesuffix(".json")
        return f"{name}, from before the migrations, is kept; no new one, the schema stays"
    return f"database of {size(database['bytes'])}, restored and compared before it counts"


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
    schema = f"{database['version']}, as it is"
    if database["version"] < head:
        schema = (
            f"from {database['version']} to {head}; serves releases of schema "
            f"{new['schema']['lowest_compatible']} or later, so {edge['release']} goes on"
        )
    rows = [
        ("release", f"{edge['release']} (serial {edge['serial']}) to {new['version']}"),
        ("images", images or "all there"),
        ("backup", backup_of(found)),
        ("schema", schema),
        ("new colour", f"{target} on {', '.join(found['app_hosts'])}; {edge['active']} serves on"),
        ("gates", "old colour on the new schema; new colour ready; requests through the preview"),
        ("switch", f"{edge['active']} to {target}, requests in hand are finished"),
        ("workers", f"{target} starts, {edge['active']} finishes what it has and stops"),
        ("way back", f"{edge['active']} stays warm for {found['hours']} h: rollback.yml"),
    ]
    if brought:
        rows[2:2] = [("disk", disk), ("to bring it", f"about {seconds:.0f} s")]
    if access := found["sources"]["access"]:
        rows.insert(-5, ("sources", "; ".join(f"{name}: {who}" for name, who in access.items())))
    if edge.get("standby"):
        gone = f"{edge['previous_release']} ({edge['standby']}) stands by no more: it makes room"
        rows.insert(-5, ("standby", gone))
    if text := "; ".join(
        f"{host}: {', '.join(parts)}" for host, parts in found["differs"].items() if parts
    ):
        rows.append(("not now", f"other images of {text}: {found['command']}install.yml later"))
    return rows


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return rows as aligned lines."""
    width = max(len(name) for name, _ in rows)
    return [f"{name.ljust(width)}  {text}" for name, text in rows]


def swap_plan(found: Findings) -> dict[str, Any]:
    """Return what serves (active, release), what shall (target), {already, problems, lines}."""
    edge, new = found["edge"], found["new"]
    already = bool(edge) and (edge["release"], edge["serial"]) == (new["version"], new["serial"])
    problems = problems_of(found, already=already)
    active = edge.get("active", COLOURS[0])
    target = active if already else COLOURS[1 - COLOURS.index(active)]
    if problems:
        lines = problems
    elif already:
        lines = [f"{found['site']} serves release {new['version']} already: what is left is done"]
    else:
        lines = [f"{found['site']}:", *table(rows_of(found, target))]
    return {
        "active": active,
        "release": edge.get("release"),
        "target": target,
        "already": already,
        "problems": problems,
        "lines": lines,
    }


def swap_different(containers: Sequence[Mapping[str, Any]], images: Mapping[str, str]) -> list[str]:
    """Return the components, but the service's own, that run with another image than these."""
    parts = {str(one["Labels"]["airlift.component"]): one["ImageID"] for one in containers}
    return sorted(
        name for name, image in parts.items() if name != "app" and images.get(name) != image
    )


def swap_way_back(found: Findings) -> dict[str, Any]:
    """Return the plan of a rollback, as swap_plan does.

    Besides: `to`, the release that shall serve and its serial; `warm`, whether it could serve at
    once on every app host that answers; `silent`, those that do not; and `abandon`: an upgrade was
    cut off before it switched, so only its beginnings have to go.
    """
    edge, database, old = found["edge"], found["database"], found["old"]
    left = [one for one in edge.get("unfinished", []) if one["step"] in ("upgrade", "rollback")]
    # Of several that were cut off, the last one is what the site was on its way to.
    nothing: dict[str, Any] = {"step": "", "data": {}}
    last = max(left, key=lambda one: int(one["seq"]), default=nothing)
    active = edge.get("active", COLOURS[0])
    plan: dict[str, Any] = {"active": active, "release": edge.get("release"), "already": False}
    plan |= {"abandon": False, "problems": [], "warm": False, "silent": []}
    other = COLOURS[1 - COLOURS.index(active)]
    if "installed" not in edge:
        problem = (
            f"the swap agent on the edge does not answer: {edge.get('msg', 'no reason given')}"
        )
        return plan | {"target": other, "to": {}, "problems": [problem], "lines": []}
    if not edge["installed"]:
        problem = f"nothing is installed here yet: run {found['command']}install.yml"
        return plan | {"target": other, "to": {}, "problems": [problem], "lines": []}
    silent, cold = standbys_of(found)
    plan |= {"silent": silent}
    begun = last["data"]
    upgrades = {one["data"].get("release") for one in left if one["step"] == "upgrade"}
    # Also when giving up was itself cut off: then the last one is a rollback of that release.
    if begun and begun.get("release") in upgrades - {edge["release"]}:
        line = (
            f"the upgrade to {begun.get('release')} had not switched: {edge['release']} serves on, "
            "and what was begun is taken away"
        )
        return plan | {"target": other, "to": begun, "abandon": True, "lines": [line]}
    if last["step"] == "rollback" and begun.get("release") == edge["release"]:
        line = f"{edge['release']} serves again already: what is left is done"
        return plan | {"target": active, "to": begun, "already": True, "lines": [line]}
    to = {"release": edge["previous_release"], "serial": edge["previous_serial"]}
    warm = edge["standby"] == other and not cold
    plan |= {"target": other, "to": to, "warm": warm}
    plan["problems"] = problems_of_way_back(found, to, old, database)
    if len(silent) == len(found["standbys"]):
        plan["problems"].append(
            f"no app host answers ({', '.join(silent)}): bring one back, then run the same again"
        )
    how = "it is warm" if warm else "from its pinned images"
    plan["lines"] = [
        f"{found['site']}: back from {edge['release']} ({active}) to {to['release']} ({other}), "
        f"{how}",
        *(f"{host}: {why}" for host, why in cold.items() if edge["standby"] == other),
        *(f"{host} does not answer: it is left as it is" for host in silent),
    ]
    return plan


def standbys_of(found: Findings) -> tuple[list[str], dict[str, str]]:
    """Return the app hosts that do not answer, and those whose standby could not serve, and why."""
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
    """Return why the release before cannot serve again."""
    if not to["release"]:
        return [f"{found['edge']['release']} is the first release here: there is none before it"]
    if to["serial"] > found["edge"]["serial"]:
        return [
            f"{found['edge']['release']} was rolled back to already; to return to {to['release']}, "
            f"run {found['command']}upgrade.yml"
        ]
    if not old or old["serial"] != to["serial"]:
        return [
            f"release {to['release']} (serial {to['serial']}) is no longer on this jump host: "
            "import its bundle again"
        ]
    if not database:
        return ["the database does not answer, so it is not known whether its schema allows it"]
    if database["lowest_compatible"] > old["schema"]["head"]:
        return [
            f"release {to['release']} is of schema {old['schema']['head']}; the database's schema "
            f"{database['version']} serves releases of schema {database['lowest_compatible']} or "
            "later. There is only the way forward: a release that mends what is wrong"
        ]
    return []


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {
            "swap_plan": swap_plan,
            "swap_different": swap_different,
            "swap_way_back": swap_way_back,
        }
