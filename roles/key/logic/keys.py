"""API keys in a site's inventory: make, find, and compare them with the database."""

from __future__ import annotations

import difflib
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bundle.core import text

Entry = dict[str, Any]

#: The service's own rules for an entry (app/db/keys.py); a test compares them.
CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
LABEL = re.compile(r"[ -~]{1,100}")
SCOPES = ("predict", "jobs", "items")
HIGHEST_LIMIT = 1_000_000
DIGITS_OF_ID = 12
#: The client whose key an upgrade uses to test a release.
OWN_CLIENT = "airlift-smoke"

#: Differences of a key between inventory and database. The first needs no action. The next two are
#: decisions of a person, which key_sync keeps. key_sync corrects the rest.
IN_EFFECT = "in effect"
BY_HAND = "made by hand, not in the inventory"
REVOKED_BY_HAND = "revoked by hand"
MISSING = "not in the database"
OLD = "not in the inventory"
DECIDED = (IN_EFFECT, BY_HAND, REVOKED_BY_HAND)


class KeyRefusedError(Exception):
    """The request cannot be fulfilled; nothing was changed."""


def make() -> tuple[str, str]:
    """Return a new key and its sha256."""
    key = f"airlift_{secrets.token_urlsafe(32)}"
    return key, hashlib.sha256(key.encode()).hexdigest()


def id_of(entry: Mapping[str, Any]) -> str:
    """Return the id of a key: the first digits of its SHA-256."""
    return str(entry.get("key_sha256", ""))[:DIGITS_OF_ID]


def entry(client: str, sha256: str, *, scopes: Sequence[str], rate_limit: int, label: str) -> Entry:
    """Return the entry of a key; raise `KeyRefusedError` if the service would reject it."""
    if not CLIENT.fullmatch(client):
        raise KeyRefusedError(
            f"key_add={client!r} is not a valid client name: use at most 63 letters, digits, dots, "
            "dashes and underscores, the first a letter or digit"
        )
    if client == OWN_CLIENT:
        raise KeyRefusedError(f"{client} is reserved: upgrades test a release with its key")
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise KeyRefusedError(
            f"key_scopes: unknown scope {', '.join(unknown)}; use any of {', '.join(SCOPES)}"
        )
    if rate_limit and not 1 <= rate_limit <= HIGHEST_LIMIT:
        raise KeyRefusedError(
            f"key_rate_limit={rate_limit} must be 1 to {HIGHEST_LIMIT} requests per minute"
        )
    if label and not LABEL.fullmatch(label):
        raise KeyRefusedError("key_label must be printable ASCII, at most 100 characters")
    made: Entry = {"client": client, "key_sha256": sha256}
    if scopes:
        made["scopes"] = [scope for scope in SCOPES if scope in scopes]
    if rate_limit:
        made["rate_limit_per_min"] = rate_limit
    if label:
        made["label"] = label
    return made


def check_new(known: Iterable[Mapping[str, Any]], client: str, label: str) -> None:
    """Reject a key with the same label as another key of its client."""
    for one in known:
        if one.get("client") == client and (one.get("label") or "") == label:
            called = f"with the label {label!r}" if label else "without a label"
            raise KeyRefusedError(
                f"{client} already has a key {called}, {id_of(one)}: give the new key its own "
                "label (-e key_label=…), then revoke the old key by its id"
            )


def find(known: Sequence[Mapping[str, Any]], wanted: str, *, last: bool = False) -> int:
    """Return the index of the only key with this client or id."""
    digits = re.fullmatch(rf"[0-9a-f]{{{DIGITS_OF_ID},64}}", wanted)
    found = [
        place
        for place, one in enumerate(known)
        if one.get("client") == wanted or (digits and str(one["key_sha256"]).startswith(wanted))
    ]
    if not found:
        names = [name for one in known for name in (str(one.get("client")), id_of(one))]
        near = difflib.get_close_matches(wanted, names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise KeyRefusedError(f"the inventory lists no key with client or id {wanted!r}.{hint}")
    if len(found) > 1:
        keys = ", ".join(
            f"{id_of(known[at])} ({known[at].get('label') or 'no label'})" for at in found
        )
        raise KeyRefusedError(f"{wanted} has {len(found)} keys: {keys}. Give the id of one")
    if len(known) == 1 and not last:
        raise KeyRefusedError(
            f"{id_of(known[0])} of {known[0].get('client')} is the last key: without it no client "
            "could use the service. Add another key first, or confirm with -e key_last=true"
        )
    return found[0]


def compare(
    listed: Iterable[Mapping[str, Any]], stored: Iterable[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Return a row per key: its facts, and whether inventory and database agree about it.

    `stored` is the output of `python -m app keys list --json`.
    """
    database = {str(row["id"]): row for row in stored}
    rows = [_row(one, id_of(one), _state(one, database.pop(id_of(one), None))) for one in listed]
    for key_id, row in database.items():
        # The key for upgrades is made when the database is updated, and is in no inventory.
        if not row.get("revoked_at") and row.get("client") != OWN_CLIENT:
            rows.append(_row(row, key_id, BY_HAND if row.get("origin") == "command" else OLD))
    return sorted(rows, key=lambda row: (row["client"], row["label"], row["id"]))


def _state(one: Mapping[str, Any], row: Mapping[str, Any] | None) -> str:
    if row is None:
        return MISSING
    if row.get("revoked_at"):
        return REVOKED_BY_HAND if row.get("revoked_by") == "command" else MISSING
    wrong = [
        name
        for name in ("client", "scopes", "rate_limit_per_min", "label")
        if _value(one, name) != _value(row, name)
    ]
    return f"other {', '.join(wrong)} in the database" if wrong else IN_EFFECT


def _value(one: Mapping[str, Any], name: str) -> Any:
    value = one.get(name)
    if name == "scopes":
        return sorted(value or SCOPES)
    if name == "rate_limit_per_min":
        return int(value) if value else None
    return str(value) if value else ""


def _row(one: Mapping[str, Any], key_id: str, state: str) -> dict[str, str]:
    limit = one.get("rate_limit_per_min")
    return {
        "client": str(one.get("client")),
        "label": str(one.get("label") or "-"),
        "scopes": ",".join(one.get("scopes") or SCOPES),
        "limit": str(limit) if limit else "-",
        "id": key_id,
        "state": state,
    }


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the rows as a table."""
    heads = ("CLIENT", "LABEL", "SCOPES", "PER MINUTE", "ID", "STATE")
    names = ("client", "label", "scopes", "limit", "id", "state")
    return text.table([heads, *([row[name] for name in names] for row in rows)])
