#!/usr/bin/python
"""Ansible module: the roles and the database of one Postgres container.

Speaks to the server as its superuser over the container's own socket, with SQL on standard
input: no password and no verifier is ever an argument, an environment variable or a log line.
A password is compared with the SCRAM verifier that the server holds, so the module changes
something only when there is something to change.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: postgres_accounts
short_description: Roles and database of a Postgres container
description:
  - Creates and corrects login roles, their passwords (as SCRAM verifiers), limits and memberships.
  - Creates the database, sets its owner and who may connect to it.
options:
  container: {description: Name of the running container., type: str, required: true}
  user: {description: Numeric user the server runs as in it., type: str, required: true}
  database: {description: Name of the database., type: str, required: true}
  owner: {description: Role that owns it., type: str, required: true}
  roles:
    description: The login roles.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Role name., type: str, required: true}
      password: {description: Password in clear., type: str, required: true}
      connection_limit: {description: Most connections at once., type: int, default: -1}
      member_of: {description: Roles granted to it., type: list, elements: str, default: []}
author: Airlift
"""

EXAMPLES = r"""
- name: Roles and database
  postgres_accounts:
    container: airlift-postgres
    user: "999:999"
    database: airlift
    owner: airlift_owner
    roles:
      - name: airlift_owner
        password: "{{ postgres_owner_password }}"
"""

RETURN = r"""
changes:
  description: What was done, or would be done in check mode, without any secret.
  type: list
  elements: str
  returned: always
"""

ITERATIONS = 4096
STATE_SQL = """
SELECT json_build_object(
  'roles', (SELECT coalesce(json_object_agg(rolname, json_build_object(
      'login', rolcanlogin,
      'super', rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,
      'limit', rolconnlimit,
      'verifier', rolpassword,
      'member_of', (SELECT coalesce(json_agg(g.rolname), '[]') FROM pg_auth_members m
                    JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = a.oid))), '{}')
    FROM pg_authid a WHERE rolname !~ '^pg_'),
  'databases', (SELECT coalesce(json_object_agg(d.datname, json_build_object(
      'owner', o.rolname,
      'public', has_database_privilege('public', d.oid, 'CONNECT')
             OR has_database_privilege('public', d.oid, 'TEMPORARY'),
      'connect', (SELECT coalesce(json_agg(r.rolname), '[]') FROM pg_roles r
                  WHERE has_database_privilege(r.oid, d.oid, 'CONNECT')))), '{}')
    FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba))
"""


def verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """Return the SCRAM-SHA-256 verifier that Postgres stores for a password."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    server = hmac.digest(salted, b"Server Key", "sha256")
    stored = hashlib.sha256(client).digest()
    salt64, stored64, server64 = (base64.b64encode(v).decode() for v in (salt, stored, server))
    return f"SCRAM-SHA-256${iterations}:{salt64}${stored64}:{server64}"


def matches(password: str, held: str | None) -> bool:
    """Tell whether a stored verifier was made from this password."""
    if not held or not held.startswith("SCRAM-SHA-256$"):
        return False
    try:
        _, parameters, _ = held.split("$")
        iterations, salt64 = parameters.split(":")
        expected = verifier(password, base64.b64decode(salt64), int(iterations))
    except ValueError:
        return False
    return hmac.compare_digest(expected, held)


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def plan_role(wanted: dict[str, Any], held: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return (what, SQL) for one role; the SQL may hold a verifier, what never does."""
    name, quoted = wanted["name"], identifier(wanted["name"])
    steps: list[tuple[str, str]] = []
    attributes = (
        "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS "
        f"CONNECTION LIMIT {wanted['connection_limit']}"
    )
    if held is None:
        steps.append((f"create role {name}", f"CREATE ROLE {quoted} {attributes};"))
    elif not held["login"] or held["super"] or held["limit"] != wanted["connection_limit"]:
        steps.append((f"correct role {name}", f"ALTER ROLE {quoted} {attributes};"))
    if not matches(wanted["password"], held["verifier"] if held else None):
        secret = verifier(wanted["password"], os.urandom(16))
        steps.append((f"password of {name}", f"ALTER ROLE {quoted} PASSWORD '{secret}';"))
    groups = set(held["member_of"]) if held else set()
    steps += [
        (f"grant {group} to {name}", f"GRANT {identifier(group)} TO {quoted};")
        for group in wanted["member_of"]
        if group not in groups
    ]
    steps += [
        (f"revoke {group} from {name}", f"REVOKE {identifier(group)} FROM {quoted};")
        for group in sorted(groups - set(wanted["member_of"]))
    ]
    return steps


def plan(params: dict[str, Any], state: dict[str, Any]) -> list[tuple[str, str]]:
    """Return every (what, SQL) that brings the server from its state to the wanted one."""
    steps: list[tuple[str, str]] = []
    for role in params["roles"]:
        steps += plan_role(role, state["roles"].get(role["name"]))
    name, owner = params["database"], params["owner"]
    held = state["databases"].get(name)
    if held is None:
        steps.append(
            (
                f"create database {name}",
                f"CREATE DATABASE {identifier(name)} OWNER {identifier(owner)};",
            )
        )
    elif held["owner"] != owner:
        steps.append(
            (
                f"owner of database {name}",
                f"ALTER DATABASE {identifier(name)} OWNER TO {identifier(owner)};",
            )
        )
    if held is None or held["public"]:
        steps.append(
            (
                f"close database {name} to other roles",
                f"REVOKE ALL ON DATABASE {identifier(name)} FROM PUBLIC;",
            )
        )
    may_connect = set() if held is None or held["public"] else set(held["connect"])
    steps += [
        (
            f"let {role['name']} connect to {name}",
            f"GRANT CONNECT ON DATABASE {identifier(name)} TO {identifier(role['name'])};",
        )
        for role in params["roles"]
        if role["name"] not in may_connect
    ]
    return steps


def psql(module: AnsibleModule, sql: str) -> str:
    """Run SQL as the superuser over the container's socket; it comes on standard input."""
    user: str = module.params["user"]
    command = ["docker", "exec", "--interactive", "--user", user, module.params["container"]]
    command += ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
    command += ["--set", "ON_ERROR_STOP=1", "--username", "postgres", "--dbname", "postgres"]
    code, out, err = module.run_command(command, data=sql)
    if code != 0:
        # psql may quote the line that failed, and with it a verifier.
        said = re.sub(r"SCRAM-SHA-256\$[^']*", "***", err.strip() or out.strip())
        module.fail_json(msg=f"Postgres refused: {said}", rc=code)
    return str(out)


def main() -> None:
    """Module entry point."""
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "database": {"type": "str", "required": True},
            "owner": {"type": "str", "required": True},
            "roles": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                    "connection_limit": {"type": "int", "default": -1},
                    "member_of": {"type": "list", "elements": "str", "default": []},
                },
            },
        },
        supports_check_mode=True,
    )
    for role in module.params["roles"]:
        if not role["password"].isascii() or not role["password"]:
            # SASLprep changes other characters, so a comparison would never come out equal.
            module.fail_json(msg=f"the password of {role['name']} must be plain ASCII, not empty")
    steps = plan(module.params, json.loads(psql(module, STATE_SQL)))
    if steps and not module.check_mode:
        # One statement a line, no transaction: CREATE DATABASE cannot run in one. Each step is
        # planned from what is there, so a run that was cut short is finished by the next.
        psql(module, "\n".join(sql for _, sql in steps))
    module.exit_json(changed=bool(steps), changes=[what for what, _ in steps])


if __name__ == "__main__":
    main()
