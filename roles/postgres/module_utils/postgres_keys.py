"""Report the API keys of a database without their hashes.

A digest covers everything that `python -m app keys sync` compares, and the hash, which cannot be
guessed: two keys are equal if their digests are. On the jump host, the roles compare the digests
with those of their list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

#: The service's id of a key: the first digits of its hash.
DIGITS_OF_ID = 12
#: Marks a key that was revoked by hand and stays revoked, whatever a list says.
REVOKED = "revoked"
#: The fields that the service compares (app/db/keys.py); a test checks that both agree.
COLUMNS = ("key_hash", "client", "scopes", "rate_limit_per_min", "label")


def digest(row: Mapping[str, Any]) -> str:
    """Return a digest that only equal rows share."""
    values = json.dumps([row.get(column) for column in COLUMNS])
    return hashlib.sha256(values.encode()).hexdigest()


def held(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return id: digest of the valid keys that come from a list, or REVOKED.

    A key that was made by hand is omitted until it is revoked.
    """
    keys = {}
    for row in rows:
        if row.get("revoked_by") == "command":
            keys[row["key_hash"][:DIGITS_OF_ID]] = REVOKED
        elif row.get("origin") == "file" and row.get("revoked_at") is None:
            keys[row["key_hash"][:DIGITS_OF_ID]] = digest(row)
    return keys
