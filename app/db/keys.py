"""API keys as a file says: the table is made equal to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import psycopg
from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from app.db.pool import conninfo
from app.observability.logging import describe_exception, get_logger
from app.settings import Settings

log = get_logger("app.keys")


class KeysError(Exception):
    """The keys could not be set; nothing was changed."""


class KeyEntry(BaseModel):
    """One key of a client, who may have several: so one can be replaced without a gap."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    client: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    key_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def read(path: Path) -> dict[bytes, str]:
    """The file's keys: digest to client."""
    try:
        entries = TypeAdapter(list[KeyEntry]).validate_json(path.read_bytes())
    except OSError as error:
        raise KeysError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in found["loc"]) or "the file"
        raise KeysError(f"{path}: {where}: {found['msg']}") from None
    keys = {bytes.fromhex(entry.key_sha256): entry.client for entry in entries}
    if len(keys) != len(entries):
        raise KeysError(f"{path}: the same key_sha256 is listed twice")
    return keys


def sync(settings: Settings, path: Path) -> dict[str, int]:
    """Add what the file has, revoke what it no longer has, in one transaction."""
    keys = read(path)
    try:
        with psycopg.connect(conninfo(settings, application="airlift-keys")) as connection:
            counts = _apply(connection, keys)
    except psycopg.Error as error:
        raise KeysError(f"Postgres: {describe_exception(error)}") from error
    log.info(
        "API keys are as the file says", changed=any(counts.values()), total=len(keys), **counts
    )
    if not keys:
        log.warning("the file lists no key: nobody can use a service that has AUTH_ENABLED=true")
    return counts


def _apply(connection: psycopg.Connection, keys: dict[bytes, str]) -> dict[str, int]:
    # Two runs at a time must not undo each other half-way.
    connection.execute("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE")
    rows = connection.execute(
        "SELECT key_hash, client, revoked_at IS NULL FROM api_keys"
    ).fetchall()
    known = {bytes(digest): (client, active) for digest, client, active in rows}
    added = revoked = 0
    for digest, client in keys.items():
        if known.get(digest) == (client, True):
            continue
        connection.execute(
            """INSERT INTO api_keys (key_hash, client) VALUES (%s, %s)
               ON CONFLICT (key_hash) DO UPDATE SET client = excluded.client, revoked_at = NULL""",
            (digest, client),
        )
        added += 1
    for digest, (_client, active) in known.items():
        if active and digest not in keys:
            connection.execute(
                "UPDATE api_keys SET revoked_at = now() WHERE key_hash = %s", (digest,)
            )
            revoked += 1
    return {"added": added, "revoked": revoked}


def dump(keys: dict[bytes, str]) -> str:
    """The file's form for some keys."""
    return json.dumps(
        [{"client": client, "key_sha256": digest.hex()} for digest, client in keys.items()]
    )
