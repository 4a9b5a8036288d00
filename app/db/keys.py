"""API keys: one table, filled from a site's file (`sync`) or by command (`add`, `revoke`).

Only the sha256 of a key is stored. The id of a key is the first twelve hex digits of that hash.

- `sync` revokes keys that came from the file and that the file no longer lists.
- A key made by command stays valid until it is revoked by command.
- A key revoked by command stays revoked, even if the file lists it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from app.db.pool import conninfo
from app.observability.logging import describe_exception, get_logger
from app.settings import Settings

SCOPES = ("predict", "jobs", "items")
_DIGITS_OF_ID = 12
Scope = Literal["predict", "jobs", "items"]

log = get_logger("app.keys")


class KeysError(Exception):
    """The command failed; nothing was changed."""


class KeyEntry(BaseModel):
    """One key of a client; a client may have several, so that one can be replaced without a gap.

    `scopes` None means all scopes; `rate_limit_per_min` None means `RATE_LIMIT_PER_MIN`.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    client: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    key_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[list[Scope], Field(min_length=1)] | None = None
    rate_limit_per_min: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    label: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,100}$")] | None = None

    def row(self) -> dict[str, Any]:
        """Return the columns of `api_keys` that the entry sets."""
        return {
            "client": self.client,
            "scopes": sorted(set(self.scopes)) if self.scopes else None,
            "rate_limit_per_min": self.rate_limit_per_min,
            "label": self.label,
        }


def read(path: Path) -> dict[bytes, KeyEntry]:
    """Return the keys of a file by their sha256 digest (32 bytes); raise `KeysError` if invalid."""
    try:
        entries = TypeAdapter(list[KeyEntry]).validate_json(path.read_bytes())
    except OSError as error:
        raise KeysError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise KeysError(f"{path}: {_first(error)}") from None
    keys = {bytes.fromhex(entry.key_sha256): entry for entry in entries}
    if len(keys) != len(entries):
        raise KeysError(f"{path}: the same key_sha256 is listed twice")
    return keys


def sync(settings: Settings, path: Path) -> dict[str, int]:
    """Add the keys that the file lists and revoke those that it no longer lists.

    One transaction. Return the counts `added` and `revoked`; raise `KeysError` on failure.
    """
    keys = read(path)
    with _table(settings) as connection:
        counts = _apply(connection, keys)
    log.info("the API keys match the file", changed=any(counts.values()), total=len(keys), **counts)
    if not keys:
        log.warning("the file lists no key: nobody can use a service that has AUTH_ENABLED=true")
    return counts


def add(settings: Settings, client: str, **options: Any) -> tuple[str, str]:
    """Create a key for a client; return its id and the key, which cannot be read again."""
    key = f"airlift_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    try:
        entry = KeyEntry(client=client, key_sha256=digest, **options)
    except ValidationError as error:
        raise KeysError(_first(error)) from None
    with _table(settings) as connection:
        _put(connection, bytes.fromhex(digest), entry, "command")
    return digest[:_DIGITS_OF_ID], key


def revoke(settings: Settings, key_id: str) -> str:
    """Revoke a key by its id and return its client; a repeated call changes nothing."""
    with _table(settings) as connection:
        row = connection.execute(
            """UPDATE api_keys
               SET revoked_at = coalesce(revoked_at, now()), revoked_by = 'command'
               WHERE id = %s RETURNING client""",
            (key_id,),
        ).fetchone()
    if row is None:
        raise KeysError(f"no key has the id {key_id!r}")
    return str(row["client"])


def listing(settings: Settings) -> list[dict[str, Any]]:
    """Return all keys that were ever created, without their hashes."""
    with _table(settings) as connection:
        return connection.execute(
            """SELECT id, client, label, coalesce(scopes, %s) AS scopes, rate_limit_per_min, origin,
                      created_at, revoked_at, revoked_by
               FROM api_keys ORDER BY client, created_at, id""",
            (list(SCOPES),),
        ).fetchall()


@contextmanager
def _table(settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    try:
        with psycopg.connect(
            conninfo(settings, application="airlift-keys"), row_factory=dict_row
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise KeysError(f"Postgres: {describe_exception(error)}") from error


def _apply(
    connection: psycopg.Connection[dict[str, Any]], keys: dict[bytes, KeyEntry]
) -> dict[str, int]:
    # Concurrent runs must not undo each other's changes.
    connection.execute("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE")
    rows = connection.execute("SELECT * FROM api_keys").fetchall()
    known = {bytes(row["key_hash"]): row for row in rows}
    added = revoked = 0
    for digest, entry in keys.items():
        row = known.get(digest)
        if row is not None and row["revoked_by"] == "command":
            log.warning(
                "the file lists a key that was revoked by hand; it stays revoked", id=row["id"]
            )
            continue
        wanted = {**entry.row(), "origin": "file", "revoked_at": None}
        if row is not None and all(row[name] == value for name, value in wanted.items()):
            continue
        _put(connection, digest, entry, "file")
        added += 1
    for digest, row in known.items():
        if row["origin"] == "file" and row["revoked_at"] is None and digest not in keys:
            connection.execute(
                "UPDATE api_keys SET revoked_at = now(), revoked_by = 'file' WHERE key_hash = %s",
                (digest,),
            )
            revoked += 1
    return {"added": added, "revoked": revoked}


def _put(
    connection: psycopg.Connection[dict[str, Any]], digest: bytes, entry: KeyEntry, origin: str
) -> None:
    connection.execute(
        """INSERT INTO api_keys (key_hash, client, scopes, rate_limit_per_min, label, origin)
           VALUES (%(digest)s, %(client)s, %(scopes)s, %(rate_limit_per_min)s, %(label)s,
                   %(origin)s)
           ON CONFLICT (key_hash) DO UPDATE SET
               client = excluded.client, scopes = excluded.scopes, label = excluded.label,
               rate_limit_per_min = excluded.rate_limit_per_min, origin = excluded.origin,
               revoked_at = NULL, revoked_by = NULL""",
        {**entry.row(), "digest": digest, "origin": origin},
    )


def _first(error: ValidationError) -> str:
    found = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"]) or "the file"
    return f"{where}: {found['msg']}"
