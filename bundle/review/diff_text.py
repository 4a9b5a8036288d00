"""The text of a diff: only changes, with warnings first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bundle.core.text import size, table

Rows = list[tuple[str, str]]


def render(found: dict[str, Any], *, verbose: bool) -> str:
    """Return the whole diff as text."""
    parts = [_table(_head(found))]
    if warnings := list(_warnings(found)):
        parts.append("\n".join(f"WARNING: {_clean(warning)}" for warning in warnings))
    same = []
    for title, rows in _sections(found, verbose=verbose):
        if rows:
            parts.append(
                f"{title}:\n" + "\n".join(f"  {line}" for line in _table(rows).split("\n"))
            )
        else:
            same.append(title)
    if same:
        parts.append(f"No difference: {', '.join(same)}.")
    return "\n\n".join(parts)


def _table(rows: Rows) -> str:
    return table([[_clean(cell) for cell in row] for row in rows])


def _clean(text: str) -> str:
    """Replace characters that move a cursor, because the texts may be unsigned."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _head(found: dict[str, Any]) -> Rows:
    rows = []
    for letter, side in (("A", found["from"]), ("B", found["to"])):
        signers = ", ".join(s["identity"] for s in side["signers"])
        trust = f"signed by {signers}" if side["trusted"] else "SIGNATURES NOT CHECKED"
        rows.append(
            (letter, f"{side['version']}, serial {side['serial']}: {side['path']}; {trust}")
        )
    carry = found["carry"]
    delta = carry["delta_bytes"]
    if found["same_release"]:
        rows.append(("release", "the same"))
    upgrade = found["upgrade"]
    stops = ", ".join(upgrade["required_stops"]) or "none"
    rows.append(("upgrade", f"to B from {upgrade['minimum_version']} or newer; stops: {stops}"))
    rows.append(("to carry", f"{size(carry['full_bytes'])} for all of B"))
    if delta is not None:
        rows.append(("", f"{size(delta)} as a delta based on {found['from']['version']}"))
    return rows


def _warnings(found: dict[str, Any]) -> Iterator[str]:
    old, new = found["from"]["version"], found["to"]["version"]
    source, upgrade, schema = found["image_source"], found["upgrade"], found["schema"]
    if source["from"] != source["to"]:
        yield (
            f"THE IMAGE SOURCE CHANGES, from {source['from']} to {source['to']}: an installed site "
            "refuses this upgrade, because other libraries of Postgres and Redis can damage data"
        )
    if upgrade["backwards"]:
        yield f"B is the older release; only rollback.yml goes from {old} to {new}"
    elif upgrade["too_old"]:
        yield f"{new} upgrades from {upgrade['minimum_version']} or newer, not from {old}"
    if upgrade["stops_between"]:
        yield f"a site must first upgrade to {', '.join(upgrade['stops_between'])}"
    if not upgrade["backwards"] and not schema["old_release_runs_on_it"]:
        yield f"{old} cannot run on the schema of {new}: rollback.yml is impossible"
    for migration in found["migrations"].get("removed", []):
        yield f"the migration {migration['revision']} is missing; a released one must be kept"
    for name, setting in found["settings"].get("added", {}).items():
        if setting["required"]:
            yield f"{name} is new and required: set it before the upgrade"


def _sections(found: dict[str, Any], *, verbose: bool) -> Iterator[tuple[str, Rows]]:
    yield "components", _components(found["components"])
    yield "schema", _schema(found["schema"])
    yield (
        "migrations",
        _unknown(found["migrations"])
        or [
            (migration["revision"], migration["title"])
            for migration in found["migrations"]["added"]
        ],
    )
    yield "settings", _unknown(found["settings"]) or _settings(found["settings"])
    yield "wheels of the jump host", _versions(found["wheels"])
    yield "packages of the hosts", _versions(found["packages"])
    yield "Ansible content and docs", _content(found["content"], verbose=verbose)
    yield "bill of materials", _unknown(found["sbom"]) or _sbom(found["sbom"], verbose=verbose)
    flaws = found["vulnerabilities"]
    yield "vulnerabilities", _unknown(flaws) or _vulnerabilities(flaws)


def _unknown(part: Mapping[str, Any]) -> Rows:
    return [("unknown", part["unknown"])] if "unknown" in part else []


def _components(part: dict[str, Any]) -> Rows:
    def new(entry: dict[str, Any]) -> str:
        layers = f"{entry['new_layers']} of {entry['layers']} layers new"
        return f"{layers}, {size(entry['new_bytes'])}"

    rows = [(name, f"added: {c['version']}, {new(c)}") for name, c in part["added"].items()]
    rows += [(name, f"REMOVED (was {version})") for name, version in part["removed"].items()]
    for name, c in part["changed"].items():
        versions = f"{c['from']} to {c['to']}" if c["from"] != c["to"] else f"{c['to']}, rebuilt"
        drift = f"; {part['drift'][name]}" if name in part["drift"] else ""
        rows.append((name, f"{versions}, {new(c)}{drift}"))
    return rows


def _schema(part: dict[str, Any]) -> Rows:
    old, new = part["from"], part["to"]
    if old == new:
        return []
    lowest = f"serves releases of schema {new['lowest_compatible']} or later"
    return [("head", f"{old['head']} to {new['head']}; {lowest}")]


def _settings(part: dict[str, Any]) -> Rows:
    rows = [
        (name, f"added: {spec['description'].rstrip('.')} ({_default(spec)})")
        for name, spec in part["added"].items()
    ]
    rows += [(name, "removed") for name in part["removed"]]
    rows += [(now, f"renamed, was {was}") for was, now in part["renamed"].items()]
    for name, aspects in part["changed"].items():
        for aspect, sides in aspects.items():
            old, new = (_value(sides[s]) if s in sides else "none" for s in ("from", "to"))
            rows.append((name, f"{aspect}: {old} to {new}"))
    return rows


def _default(spec: dict[str, Any]) -> str:
    if "default" in spec:
        return f"default {_value(spec['default'])}"
    return "required" if spec["required"] else "no default"


def _value(value: Any) -> str:
    """Return a value as JSON, which tells 80 from "80", in one line of limited length."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _versions(part: dict[str, Any]) -> Rows:
    return [
        *((name, f"added: {', '.join(versions)}") for name, versions in part["added"].items()),
        *((name, f"removed ({', '.join(v)})") for name, v in part["removed"].items()),
        *(
            (name, f"{', '.join(v['from'])} to {', '.join(v['to'])}")
            for name, v in part["changed"].items()
        ),
        *((name, "same version, other bytes") for name in part.get("rebuilt", [])),
    ]


def _content(part: dict[str, list[str]], *, verbose: bool) -> Rows:
    counts = [f"{len(paths)} {word}" for word, paths in part.items() if paths]
    if not counts:
        return []
    rows = [("files", ", ".join(counts) + ("" if verbose else "; -v lists them"))]
    if verbose:
        rows += [(word, path) for word, paths in part.items() for path in paths]
    return rows


def _sbom(part: dict[str, Any], *, verbose: bool) -> Rows:
    counts = [f"{len(part[w])} {w}" for w in ("added", "removed", "changed") if part[w]]
    if not counts:
        return []
    total = f"{part['packages']['to']} packages: "
    rows = [("all images", total + ", ".join(counts) + ("" if verbose else "; -v lists them"))]
    return rows + (_versions(part) if verbose else [])


def _vulnerabilities(part: dict[str, Any]) -> Rows:
    def row(word: str, finding: dict[str, Any]) -> tuple[str, str]:
        where = f"{finding['component']}, {finding['package']} {finding['version']}"
        repair = f"; fixed in {finding['fixed_in']}" if finding.get("fixed_in") else ""
        return word, f"{finding['id']} ({finding['severity']}) in {where}{repair}"

    rows = [row("NEW", finding) for finding in part["new"]]
    rows += [row("fixed", finding) for finding in part["fixed"]]
    return [*rows, ("open in B", str(part["open"]))] if rows else []
