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
#: The settings that decide this; without a value in the inventory, the role's default applies. Of
#: the keys only `clients` is read.
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
    """The access of clients to the sources of a site.

    `access` maps each listed source to its clients, `unlisted` are the registered sources without
    an entry, and `setting` is an inventory line that lists all of them. Without authentication
    there is nothing to list.
    """

    access: dict[str, list[str]]
    unlisted: list[str]
    setting: str


def defaults(roles: Path) -> dict[str, Any]:
    """Return the default settings."""
    text = (roles / "app" / "defaults" / "main.yml").read_text(encoding="utf-8")
    found = yaml_load(text)
    return {name: found[name] for name in SETTINGS}


def of_inventory(
    hosts: Iterable[Mapping[str, Any]], unset: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Return the settings of hosts, from their variables and the defaults."""
    for variables in hosts:
        host = {name: variables.get(name, unset[name]) for name in SETTINGS}
        host["clients"] = [str(key["client"]) for key in host.pop("app_api_keys")]
        yield host


def of_hosts(hosts: Iterable[Mapping[str, Any]]) -> Sources:
    """Combine the settings of all app hosts."""
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
            # A name in place of a list does not count; the printed line corrects it.
            if isinstance(here.get(name), list):
                access[name] = list(here[name])
            else:
                unlisted.add(name)
    # The clients that can use a source now, by name: all releases read that the same way.
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
