"""The `accounts` service: roles and database in Postgres, as the role postgres wants them.

Speaks to the server as its superuser over the socket that it shares with it. The planning is the
role's own file, mounted beside this file; accounts.json is rendered from the role's data and
names the file of each password.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import postgres_accounts  # type: ignore[import-not-found]
import psycopg

SECRETS = Path("/run/secrets")
WANTED = Path("/stack/accounts.json")
SOCKET = "/run/postgresql"


def main() -> int:
    """Bring the server's accounts in line; say what was done."""
    roles = json.loads(WANTED.read_text())
    for role in roles:
        role["password"] = (SECRETS / role["password"]).read_text()
        role.setdefault("member_of", [])
    wanted = {"database": "airlift", "owner": "airlift_owner", "roles": roles}
    with psycopg.connect(
        host=SOCKET, user="postgres", dbname="postgres", autocommit=True
    ) as server:
        row = server.execute(postgres_accounts.STATE_SQL).fetchone()
        for what, sql in postgres_accounts.plan(wanted, row[0] if row else {}):
            server.execute(sql)
            print(what, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
