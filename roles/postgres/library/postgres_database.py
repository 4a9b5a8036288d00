#!/usr/bin/python
"""Set up the accounts of a Postgres container and return the state of its database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_database
short_description: Set accounts of a Postgres container; return its schema and API keys
description:
  - Creates and corrects login roles, their passwords (as SCRAM verifiers), limits and memberships.
  - Creates the database, sets its owner and who may connect to it.
  - Speaks to the server as its superuser over the container's own socket, with SQL on standard
    input. No password, verifier or hash is an argument of a program, a log line or a result.
options:
  container: {description: Name of the running container., type: str, required: true}
  user: {description: Numeric user the server runs as in it., type: str, required: true}
  database: {description: Name of the database., type: str, required: true}
  owner: {description: Role that owns it; needed with O(roles)., type: str, default: ""}
  roles:
    description: The login roles.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Role name., type: str, required: true}
      password: {description: Password in clear., type: str, required: true}
      connection_limit: {description: Most connections at once., type: int, default: -1}
      member_of: {description: Roles granted to it., type: list, elements: str, default: []}
  new: {type: bool, default: false,
    description: Whether check mode stands before a cluster that does not exist yet.}
"""

RETURN = r"""
changes: {type: list, elements: str, returned: always,
  description: "What was done, or would be done in check mode, without any secret."}
schema: {type: dict, returned: when it has a schema,
  description: "C(version), C(lowest_compatible) and C(bytes) of the database."}
api_keys: {type: dict, returned: when it has a schema,
  description: "The API keys by id, each with a digest of all that the service compares."}
"""

import json  # noqa: E402
import re  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.engine_client import docker  # noqa: E402
from ansible.module_utils.host_module import answer  # noqa: E402
from ansible.module_utils.host_tools import RefusedError  # noqa: E402
from ansible.module_utils.postgres_accounts import STATE_SQL, plan  # noqa: E402
from ansible.module_utils.postgres_keys import held  # noqa: E402

# With a schema: one line of JSON about the database. Read whole rows of keys, so that columns of
# later releases are included.
DATABASE_SQL = r"""
SELECT count(*) = 1 AS there FROM pg_database WHERE datname = :'database' \gset
\if :there
\connect :"database"
SELECT to_regclass('public.schema_version') IS NOT NULL AS migrated \gset
\if :migrated
SELECT jsonb_build_object(
  'schema', (SELECT jsonb_build_object('version', version, 'lowest_compatible', lowest_compatible,
                                       'bytes', pg_database_size(current_database()))
             FROM public.schema_version ORDER BY version DESC LIMIT 1),
  'api_keys', (SELECT coalesce(jsonb_agg(to_jsonb(k)
                        || jsonb_build_object('key_hash', encode(key_hash, 'hex'))), '[]')
               FROM public.api_keys k));
\endif
\endif
"""


def psql(module: Any, sql: str) -> str:
    """Run SQL as the superuser over the container's socket; it comes on standard input."""
    params = module.params
    command = ["exec", "--interactive", "--user", params["user"], params["container"]]
    command += ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
    command += ["--set", "ON_ERROR_STOP=1", "--set", f"database={params['database']}"]
    command += ["--username", "postgres", "--dbname", "postgres"]
    done = docker(*command, input=sql)
    if done.returncode != 0:
        # psql may quote the line that failed, and with it a verifier.
        said = re.sub(r"SCRAM-SHA-256\$[^']*", "***", done.stderr.strip() or done.stdout.strip())
        raise RefusedError(f"Postgres refused: {said}")
    return str(done.stdout)


def run(module: Any) -> dict[str, Any]:
    """Ask, correct what differs, and return the result."""
    params = module.params
    for role in params["roles"]:
        if not role["password"].isascii() or not role["password"]:
            # SASLprep changes other characters, so a comparison would never come out equal.
            raise RefusedError(f"the password of {role['name']} must be plain ASCII, not empty")
    result: dict[str, Any] = {"changed": False, "changes": []}
    state: dict[str, Any] = {"roles": {}, "databases": {}}
    if not (params["new"] and module.check_mode):
        try:
            lines = psql(module, f"{STATE_SQL};{DATABASE_SQL}").splitlines()
        except RefusedError as error:
            if not module.check_mode:
                raise
            # A real run would start the server first.
            return {**result, "msg": str(error)}
        state = json.loads(lines[0])
        if len(lines) > 1:
            found = json.loads(lines[1])
            result |= {"schema": found["schema"] or {}, "api_keys": held(found["api_keys"])}
    steps = plan(params, state) if params["roles"] else []
    if steps and not module.check_mode:
        # One statement per line, without a transaction: CREATE DATABASE cannot run in one. Each
        # step is planned from the current state, so the next run completes an interrupted one.
        psql(module, "\n".join(sql for _, sql in steps))
    return {**result, "changed": bool(steps), "changes": [what for what, _ in steps]}


ROLE = {
    "name": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "connection_limit": {"type": "int", "default": -1},
    "member_of": {"type": "list", "elements": "str", "default": []},
}
OPTIONS = {
    **{name: {"required": True} for name in ("container", "user", "database")},
    "owner": {"type": "str", "default": ""},
    "roles": {"type": "list", "elements": "dict", "default": [], "options": ROLE},
    "new": {"type": "bool", "default": False},
}

if __name__ == "__main__":
    answer(run, OPTIONS)
