"""The commands for API keys: `python -m app keys add|revoke|list|sync`.

The commands run as the owner of the tables. The service's own user can only read them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from app.settings import Settings


def add_commands(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to a command line; import little, because health checks parse it too."""
    sync = commands.add_parser("sync", help="make the keys equal to those in a file")
    sync.add_argument(
        "file",
        type=Path,
        help='[{"client": "…", "key_sha256": "…", "scopes": ["…"], "rate_limit_per_min": 1, '
        '"label": "…"}]; the last three are optional',
    )
    add = commands.add_parser("add", help="make a key; it is printed once and never again")
    add.add_argument("client", help="client that will use it")
    add.add_argument(
        "--scope", action="append", help="scope of the key; may be repeated; all scopes by default"
    )
    add.add_argument(
        "--rate-limit", type=int, help="requests per minute; the service's limit by default"
    )
    add.add_argument("--label", help="a word that distinguishes the keys of one client")
    revoke = commands.add_parser("revoke", help="revoke a key")
    revoke.add_argument("id", help="id of the key, from `list`")
    listing = commands.add_parser("list", help="list ids, clients and permissions, never the keys")
    listing.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Run one command; raise `KeysError` if it fails."""
    from app.db import keys  # noqa: PLC0415 - imports psycopg

    match options.keys_command:
        case "sync":
            keys.sync(settings, options.file)
        case "add":
            key_id, key = keys.add(
                settings,
                options.client,
                scopes=options.scope,
                rate_limit_per_min=options.rate_limit,
                label=options.label,
            )
            # Print only the key to standard output, so that it can be redirected.
            print(key)
            print(f"id {key_id}; the key is not shown again", file=sys.stderr)
        case "revoke":
            client = keys.revoke(settings, options.id)
            print(f"{options.id} of {client} is revoked", file=sys.stderr)
        case "list":
            _show(keys.listing(settings), as_json=options.json)


def _show(rows: list[dict[str, object]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, default=str))
        return
    names = ("id", "client", "label", "scopes", "rate_limit_per_min", "origin", "revoked_at")
    table = [names, *(tuple(_cell(row[name]) for name in names) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "-" if value is None else str(value)
