"""The API keys that a database holds, told without a key's hash.

Two keys are equal if their digests are: over everything that `python -m app keys sync` compares,
and over the hash, which nobody can guess. The roles compare their list with it on the jump host.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

#: The service's own name of a key: the first digits of its hash.
DIGITS_OF_ID = 12
#: Revoked by hand, and so it stays, whatever a list says.
REVOKED = "revoked"
#: What the service compares (app/db/keys.py); a test holds both together.
COLUMNS = ("key_hash", "client", "scopes", "rate_limit_per_min", "label")


def digest(row: Mapping[str, Any]) -> str:
    """Return what two equal rows have in common and no others."""
    values = json.dumps([row.get(column) for column in COLUMNS])
    return hashlib.sha256(values.encode()).hexdigest()


def held(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return id: digest of the keys that come from a list and are in effect, or REVOKED.

    A key that was made by hand is no list's business until it is revoked.
    """
    keys = {}
    for row in rows:
        if row.get("revoked_by") == "command":
            keys[row["key_hash"][:DIGITS_OF_ID]] = REVOKED
        elif row.get("origin") == "file" and row.get("revoked_at") is None:
            keys[row["key_hash"][:DIGITS_OF_ID]] = digest(row)
    return keys
