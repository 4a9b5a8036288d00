"""Check that roles know the inventory's variables, and that their required settings are set.

Argument specs check only the values of known variables. They ignore a misspelt name, and the role
uses its default. So this module looks up every name.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

from roles.site.logic.sources import Sources

PLACEHOLDER = "CHANGE-ME"
Row = dict[str, str]


@dataclass(frozen=True)
class Option:
    """One setting, as a role's argument_specs describe it."""

    name: str
    role: str
    required: bool
    secret: bool
    description: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """One variable, as an inventory sets it."""

    name: str
    where: str


def row(*cells: str) -> Row:
    """Return one line of the report: host, check, fact, need, fix."""
    return dict(zip(("host", "check", "fact", "need", "fix"), cells, strict=True), level="error")


def known_options(roles: Path) -> dict[str, Option]:
    """Return every setting that a role of the release knows."""
    options: dict[str, Option] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        role = path.parents[1].name
        entries = yaml_load(path.read_text(encoding="utf-8"))["argument_specs"]
        # Read the main entry last: its description of an option takes precedence.
        for entry in sorted(entries, key=lambda name: name == "main"):
            for name, spec in (entries[entry].get("options") or {}).items():
                description = spec.get("description", "")
                options[name] = Option(
                    name=name,
                    role=role,
                    required=bool(spec.get("required")) and entry == "main",
                    secret=bool(spec.get("no_log")),
                    description=description if isinstance(description, str) else description[0],
                    spec=spec,
                )
    return options


def renamed_settings(roles: Path) -> dict[str, str]:
    """Return old name: new name, for settings that have been renamed."""
    text = (roles / "site" / "vars" / "renamed.yml").read_text(encoding="utf-8")
    return dict(yaml_load(text) or {})


def unknown_settings(
    settings: Iterable[Setting],
    options: Mapping[str, Option],
    allowed: Sequence[str],
    renamed: Mapping[str, str],
) -> list[Row]:
    """Return the variables that neither a role nor Ansible knows, with the closest known name."""
    rows: dict[str, Row] = {}
    for setting in settings:
        name = setting.name
        if name in options or any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed):
            continue
        if name in renamed:
            fix = f"rename it to {renamed[name]}, with the same value"
        elif near := nearest(name, [*options, *allowed]):
            option = options.get(near)
            meaning = f" ({option.description.rstrip('.')})" if option else ""
            fix = f"did you mean {near}{meaning}?"
        else:
            fix = "remove it, or add it to preflight_own_variables if it is a helper of your own"
        rows.setdefault(
            name,
            row(
                "inventory",
                "variable name",
                f"{name} is set in {setting.where}",
                "a setting that a role knows",
                fix,
            ),
        )
    return list(rows.values())


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the most similar known name, or an empty string."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), "")


def missing_settings(
    options: Mapping[str, Option],
    wanted: Mapping[str, Sequence[str]],
    lookup: Callable[[str, str], Any],
    has: Callable[[str, str], bool],
) -> list[Row]:
    """Return the required settings that are not set, or still hold an example's value.

    `wanted` gives for each role the hosts that it runs on.
    """
    rows = []
    for option in options.values():
        # A secret that is not required may be missing or empty, but not be what everybody knows.
        if not option.required and not option.secret:
            continue
        hosts = wanted.get(option.role, [])
        lacking = [host for host in hosts if not has(host, option.name)]
        if not option.required:
            hosts, lacking = [host for host in hosts if host not in lacking], []
        place = "group_vars/all/vault.yml" if option.secret else "group_vars/all/main.yml"
        how = " (ansible-vault edit)" if option.secret else ""
        if lacking:
            where = "inventory" if len(lacking) == len(hosts) else ", ".join(lacking)
            rows.append(
                row(
                    where,
                    "missing variable",
                    f"{option.name} is not set",
                    option.description.rstrip("."),
                    f"set {option.name} in {place}{how}",
                )
            )
            continue
        for host in hosts:
            value = lookup(host, option.name)
            empty = option.required and value in ("", None)
            if empty or (isinstance(value, str) and PLACEHOLDER in value):
                said = "empty" if value in ("", None) else "the example's value"
                rows.append(
                    row(
                        "inventory",
                        "missing variable",
                        f"{option.name} is {said}",
                        option.description.rstrip("."),
                        f"set {option.name} to your own value in {place}{how}",
                    )
                )
                break
    return rows


def wrong_values(
    options: Mapping[str, Option],
    settings: Mapping[str, str],
    host: str,
    lookup: Callable[[str, str], Any],
    validate: Callable[[Mapping[str, Any], Mapping[str, Any]], Sequence[str]],
) -> list[Row]:
    """Check the values that one host gets against the roles' specifications.

    `settings` is name: where it is set. `validate` takes specs and values and returns messages.
    """
    rows = []
    for name, where in settings.items():
        option = options.get(name)
        if option is None:
            continue
        try:
            value = lookup(host, name)
        except Exception as error:
            rows.append(
                row(
                    host,
                    "variable value",
                    f"{name} in {where} cannot be evaluated: {str(error).splitlines()[0]}",
                    option.description.rstrip("."),
                    "set the variable that it refers to",
                )
            )
            continue
        messages = validate({name: dict(option.spec)}, {name: value})
        rows += [
            row(
                host,
                "variable value",
                f"{name} in {where}: " + ("has a wrong type" if option.secret else message),
                option.description.rstrip("."),
                f"correct {name}",
            )
            for message in messages
        ]
    return rows


def unlisted_sources(found: Sources) -> list[Row]:
    """Return the sources that no client could use, with the inventory line that allows clients."""
    if not found.unlisted:
        return []
    return [
        row(
            "inventory",
            "source clients",
            f"no client could use {', '.join(found.unlisted)}: not in app_source_clients",
            "the clients of each source that the site registers",
            f"in group_vars/all/main.yml, set this or a shorter list: {found.setting} - "
            '"*" means every client, [] none',
        )
    ]


def same_for_all(rows: Sequence[Row], hosts: int) -> list[Row]:
    """Merge rows that are the same for every host into one row of the inventory."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for one in rows:
        key = tuple(value for name, value in one.items() if name != "host")
        groups.setdefault(key, []).append(one)
    result = []
    for found in groups.values():
        if len(found) == hosts:
            result.append({**found[0], "host": "inventory"})
        else:
            result.extend(found)
    return result
