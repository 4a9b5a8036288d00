"""Filters that evaluate the output of the service's commands, and whether a command is due."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

# The release directory, from which the roles' shared code is imported on the controller.
RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.key.logic import keys  # noqa: E402
from roles.postgres.module_utils import postgres_keys as stored  # noqa: E402
from roles.site.module_utils.container_logs import last_error  # noqa: E402

UNDECIDED = "an entry of app_api_keys that only the service can judge"


def app_reason(output: str) -> str:
    """Return the reason of the last error among lines that are JSON objects, or the last line."""
    return last_error(str(output), plain=False) or "it logged nothing"


def app_keys_differ(
    listed: Iterable[Mapping[str, Any]], held: Mapping[str, str] | None
) -> list[str]:
    """Return the keys that `python -m app keys sync` would change, by id and client.

    `held` is the result of the module postgres_database, or None if the database was not queried.
    An entry that the service may reject or convert is left for the service to decide.
    """
    if held is None:
        return ["the keys of the database are not known"]
    differ: list[str] = []
    known: set[str] = set()
    for entry in listed:
        if not _plain(entry) or (key_id := keys.id_of(entry)) in known:
            return [UNDECIDED]
        known.add(key_id)
        scopes = entry.get("scopes")
        row = {
            "key_hash": entry["key_sha256"],
            "client": entry["client"],
            "scopes": sorted(set(scopes)) if scopes else None,
            "rate_limit_per_min": entry.get("rate_limit_per_min"),
            "label": entry.get("label"),
        }
        if held.get(key_id) not in (stored.digest(row), stored.REVOKED):
            differ.append(f"{key_id} of {entry['client']}")
    gone = (key_id for key_id, one in held.items() if one != stored.REVOKED)
    return differ + sorted(key_id for key_id in gone if key_id not in known)


def _matches(pattern: str | re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_scopes(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(one in keys.SCOPES for one in value)


def _is_limit(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and 1 <= value <= keys.HIGHEST_LIMIT


_NEEDED: dict[str, Callable[[Any], bool]] = {
    "client": partial(_matches, keys.CLIENT),
    "key_sha256": partial(_matches, r"[0-9a-f]{64}"),
}
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "scopes": _is_scopes,
    "rate_limit_per_min": _is_limit,
    "label": partial(_matches, keys.LABEL),
}


def _plain(entry: Any) -> bool:
    """Return whether the service accepts an entry and stores its values unchanged."""
    return (
        isinstance(entry, Mapping)
        and set(entry) <= {*_NEEDED, *_OPTIONAL}
        and all(right(entry.get(name)) for name, right in _NEEDED.items())
        and all(entry.get(name) is None or right(entry[name]) for name, right in _OPTIONAL.items())
    )


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {"app_reason": app_reason, "app_keys_differ": app_keys_differ}
