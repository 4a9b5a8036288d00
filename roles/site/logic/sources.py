"""Which clients are allowed to use the sources that a site registers.

With authentication on, no client can use a source that app_source_clients does not list. Preflight
and plans report that before anything is changed, with the lines that keep the source in use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.common.yaml import yaml_load

LISTED = "app_source_clients"
#: The settings that say it; those that the inventory does not set have the role's defaults. Of the
#: keys only `clients` is looked at: whose they are.
SETTINGS = (
    "app_auth_enabled",
    "app_api_keys",
    "app_file_roots",
    "app_api_sources_allowed",
    "app_database_sources",
    "app_own_database_source",
    LISTED,
)
EVERYBODY = "*"


class Sources(NamedTuple):
    """What the hosts of a site say of their sources.

    `access` are the clients of each registered source that is listed, `unlisted` are the others,
    `setting` is a line for the inventory that lists all of them. Where authentication is off there
    is nothing to list.
    """

    access: dict[str, list[str]]
    unlisted: list[str]
    setting: str


def defaults(roles: Path) -> dict[str, Any]:
    """Return the settings as they are where the inventory does not set them."""
    text = (roles / "app" / "defaults" / "main.yml").read_text(encoding="utf-8")
    found = yaml_load(text)
    return {name: found[name] for name in SETTINGS}


def of_inventory(
    hosts: Iterable[Mapping[str, Any]], unset: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Return the settings of hosts, from their variables and what is so where one is not set."""
    for variables in hosts:
        host = {name: variables.get(name, unset[name]) for name in SETTINGS}
        host["clients"] = [str(key["client"]) for key in host.pop("app_api_keys")]
        yield host


def of_hosts(hosts: Iterable[Mapping[str, Any]]) -> Sources:
    """Return what the settings of the application's hosts say together."""
    access: dict[str, list[str]] = {}
    listed: dict[str, list[str]] = {}
    unlisted, clients = set(), set()
    for host in hosts:
        if not host["app_auth_enabled"]:
            continue
        clients |= set(host["clients"])
        here = {_plain(name): clients_of for name, clients_of in (host[LISTED] or {}).items()}
        listed |= {name: [one] if isinstance(one, str) else one or [] for name, one in here.items()}
        for name in registered(host):
            # A name where a list is meant is none: the line that is printed puts it right.
            if isinstance(here.get(name), list):
                access[name] = list(here[name])
            else:
                unlisted.add(name)
    # Those that may use a source now, by name: every release reads that the same way.
    wanted = {**dict.fromkeys(unlisted, sorted(clients)), **listed}
    return Sources(dict(sorted(access.items())), sorted(unlisted), _line(wanted))


def registered(host: Mapping[str, Any]) -> list[str]:
    """Return the sources that a host registers, as app_source_clients names them."""
    databases = [*(host["app_database_sources"] or {}), host["app_own_database_source"]]
    return [
        *(f"root:{name}" for name in host["app_file_roots"] or {}),
        *(f"api:{name}".lower() for name in host["app_api_sources_allowed"] or []),
        *(f"database:{name}" for name in databases if name),
    ]


def people(clients: Sequence[str]) -> str:
    """Return the clients of a source as a readable text."""
    if EVERYBODY in clients:
        return "every client"
    return ", ".join(clients) or "no client"


def _plain(name: object) -> str:
    text = str(name)
    return text.lower() if text.startswith("api:") else text


def _line(listed: Mapping[str, Sequence[str]]) -> str:
    # JSON is YAML.
    entries = (f"{json.dumps(name)}: {json.dumps(list(listed[name]))}" for name in sorted(listed))
    return f"{LISTED}: {{{', '.join(entries)}}}"
