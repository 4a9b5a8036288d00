"""Accounts are changed only if they differ, and no secret is shown."""

import base64
import hashlib
import hmac
from types import ModuleType
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

OWNER = {"name": "airlift_owner", "password": "owner", "connection_limit": 10, "member_of": []}
MONITOR = {
    "name": "airlift_monitor",
    "password": "monitor",
    "connection_limit": 5,
    "member_of": ["pg_monitor"],
}
PARAMS = {"database": "airlift", "owner": "airlift_owner", "roles": [OWNER, MONITOR]}


@pytest.fixture
def accounts() -> ModuleType:
    return plugin("postgres/module_utils/postgres_accounts.py")


def settled(module: ModuleType) -> dict[str, Any]:
    """Return the state of a server that needs no change."""
    return {
        "roles": {
            role["name"]: {
                "login": True,
                "super": False,
                "limit": role["connection_limit"],
                "verifier": module.verifier(role["password"], b"0123456789abcdef"),
                "member_of": role["member_of"],
            }
            for role in PARAMS["roles"]
            if isinstance(role, dict)
        },
        "databases": {
            "airlift": {
                "owner": "airlift_owner",
                "public": False,
                "connect": ["airlift_owner", "airlift_monitor", "postgres"],
            }
        },
    }


def test_verifier_agrees_with_the_exchange_of_rfc_7677(accounts: ModuleType) -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    made = accounts.verifier("pencil", salt, 4096)
    stored = base64.b64decode(made.split("$")[2].split(":")[0])
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(stored, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored


def test_nothing_to_do_on_a_settled_server(accounts: ModuleType) -> None:
    assert accounts.plan(PARAMS, settled(accounts)) == []


def test_an_empty_server_gets_everything(accounts: ModuleType) -> None:
    steps = accounts.plan(PARAMS, {"roles": {}, "databases": {}})
    assert [what for what, _ in steps] == [
        "create role airlift_owner",
        "password of airlift_owner",
        "create role airlift_monitor",
        "password of airlift_monitor",
        "grant pg_monitor to airlift_monitor",
        "create database airlift",
        "close database airlift to other roles",
        "let airlift_owner connect to airlift",
        "let airlift_monitor connect to airlift",
    ]


def test_a_new_password_is_one_step_and_stays_hidden(accounts: ModuleType) -> None:
    params = {**PARAMS, "roles": [{**OWNER, "password": "rotated"}, MONITOR]}
    [(what, sql)] = accounts.plan(params, settled(accounts))
    assert what == "password of airlift_owner"
    assert "rotated" not in sql
    assert accounts.matches("rotated", sql.split("'")[1])


@pytest.mark.parametrize(
    "held", [None, "", "md5abc", "SCRAM-SHA-256$broken", "SCRAM-SHA-256$x:y$z"]
)
def test_anything_but_a_fitting_verifier_is_replaced(
    accounts: ModuleType, held: str | None
) -> None:
    assert not accounts.matches("owner", held)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"super": True}, "correct role airlift_owner"),
        ({"login": False}, "correct role airlift_owner"),
        ({"limit": 99}, "correct role airlift_owner"),
        ({"member_of": ["pg_write_all_data"]}, "revoke pg_write_all_data from airlift_owner"),
    ],
)
def test_drift_is_corrected(accounts: ModuleType, change: dict[str, Any], what: str) -> None:
    state = settled(accounts)
    state["roles"]["airlift_owner"].update(change)
    assert [step for step, _ in accounts.plan(PARAMS, state)] == [what]


def test_an_open_database_is_closed_and_its_owner_corrected(accounts: ModuleType) -> None:
    state = settled(accounts)
    state["databases"]["airlift"].update(owner="postgres", public=True)
    assert [what for what, _ in accounts.plan(PARAMS, state)] == [
        "owner of database airlift",
        "close database airlift to other roles",
        "let airlift_owner connect to airlift",
        "let airlift_monitor connect to airlift",
    ]


def test_names_are_quoted(accounts: ModuleType) -> None:
    assert accounts.identifier('a"b') == '"a""b"'
