"""The roles and the database of a Postgres server: compare the state, and plan the SQL.

A password is compared with the SCRAM verifier in the server, so there is SQL only for a real
change. The local stack also runs this file; it needs only Python.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from typing import Any

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
    """Return whether a stored verifier was made from this password."""
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
    """Return (description, SQL) for a role; the SQL may contain a verifier, the description not."""
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
    """Return all (description, SQL) that change the server's state to the wanted one."""
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
