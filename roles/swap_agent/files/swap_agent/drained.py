"""Which hosts an operator has taken out of service, and an upstream file without them.

The record is a file of its own, not a part of the state: a switch, its undoing and a rollback
restore states, and a host stays out whatever serves. An agent of an older release does not know the
file and can read everything else. In a tree the lines of such a host are comments, so the watch
neither checks it nor brings it back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from swap_agent.state import Settings, SwapError, parsed, replace_synced

#: Host: who drained it (`by`) and when (`since`).
Drained = dict[str, dict[str, str]]
#: Any server of an upstream file, also those that only the preview shows.
_ANY = re.compile(r"^\s*(server [^;#]+;) # (?P<name>.+)$")


def file_of(settings: Settings) -> Path:
    """Return where the record is."""
    return settings.state_file.with_name("drained.json")


def load(settings: Settings) -> Drained:
    """Return the hosts that are drained."""
    path = file_of(settings)
    try:
        raw = parsed(path.read_text())
        return {
            host: {"by": _text(one, "by"), "since": _text(one, "since")}
            for host, one in raw.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SwapError(
            f"the record of drained hosts, {path}, cannot be read: {error}; remove the file, then "
            "drain the hosts again that must stay out"
        ) from error


def _text(one: object, name: str) -> str:
    value = one[name] if isinstance(one, dict) else None
    if not isinstance(value, str):
        raise TypeError(f"{name} is missing or of another type")
    return value


def save(settings: Settings, hosts: Mapping[str, Mapping[str, str]]) -> None:
    """Write the record, completely or not at all."""
    body = json.dumps(hosts, indent=1, sort_keys=True)
    replace_synced(file_of(settings), (body + "\n").encode())


def names(text: str) -> list[str]:
    """Return the hosts in an upstream file, in its order; drained ones are none of them."""
    found = (_ANY.match(line) for line in text.split("\n"))
    return list(dict.fromkeys(one["name"] for one in found if one))


def without(text: str, hosts: Collection[str]) -> str:
    """Return an upstream file in which the servers of these hosts are comments."""
    there = names(text)
    if there and set(there) <= set(hosts):
        raise SwapError(
            f"every app host of this site is drained ({', '.join(there)}): bring one back first, "
            f"with playbooks/drain_host.yml -e bring_back={there[0]}"
        )
    return "\n".join(
        f"    # drained: {found[1]} # {found['name']}"
        if (found := _ANY.match(line)) and found["name"] in hosts
        else line
        for line in text.split("\n")
    )


def in_words(hosts: Drained, asked: Iterable[str]) -> list[str]:
    """Return one reason for each of these hosts that is drained."""
    return [
        f"{host} is drained by {hosts[host]['by']} since {hosts[host]['since']}"
        for host in asked
        if host in hosts
    ]
