"""Keys created, listed and revoked by hand, beside those of a site's file; their scopes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.unit.app import warm
from tests.unit.app.appkit import Postgres, Process, Site, eventually
from tests.unit.app.test_app_database import roles

pytestmark = pytest.mark.docker


def keys(site: Site, *arguments: str, fails: int = 0) -> tuple[str, str]:
    """Run `python -m app.keys`; return its stdout and stderr."""
    done = warm.run("app.keys", arguments, env=site.environment, cwd=site.folder)
    assert done.returncode == fails, done.stdout + done.stderr
    return done.stdout, done.stderr


def add(site: Site, client: str, *options: str) -> tuple[str, str]:
    """Create a key; return its id and the key."""
    key = keys(site, "add", client, *options)[0].strip()
    return hashlib.sha256(key.encode()).hexdigest()[:12], key


def listed(site: Site) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in json.loads(keys(site, "list", "--json")[0])}


def status(web: Process, path: str, key: str) -> int:
    return web.http.get(path, headers={"x-api-key": key}).status_code


def write(path: Path, *entries: dict[str, Any]) -> str:
    path.write_text(json.dumps(entries))
    return str(path)


@pytest.fixture(scope="module")
def web(shared: Site) -> Process:
    return shared.serve(AUTH_ENABLED="true", AUTH_CACHE_SECONDS="0.1")


@pytest.mark.slow
def test_a_key_is_printed_once_and_stored_as_a_hash(shared: Site, web: Process) -> None:
    out, err = keys(shared, "add", "billing", "--label", "night run")
    key = out.removesuffix("\n")
    assert "\n" not in key
    assert len(key) > 40
    assert key not in err
    assert status(web, "/predict", key) == 200
    assert status(web, "/predict", key[:-1]) == 401
    for shown in (*keys(shared, "list"), *keys(shared, "list", "--json")):
        assert key not in shown
    digest = hashlib.sha256(key.encode()).digest()
    assert listed(shared)[digest.hex()[:12]]["label"] == "night run"
    row = shared.one("SELECT a::text FROM api_keys a WHERE key_hash = %s", digest)
    assert key not in row
    assert key not in web.log.read_text()


@pytest.mark.slow
def test_a_key_is_revoked_without_a_restart_and_stays_so(shared: Site, web: Process) -> None:
    key_id, key = add(shared, "leaver")
    entry = {"client": "leaver", "key_sha256": hashlib.sha256(key.encode()).hexdigest()}
    shared.command("keys", "sync", write(shared.folder / "keys.json", entry))
    assert status(web, "/predict", key) == 200
    _, err = keys(shared, "revoke", key_id)
    assert "leaver" in err
    eventually(lambda: status(web, "/predict", key) == 401)
    keys(shared, "revoke", key_id)
    # The file still lists the key: the next install must not restore one revoked by hand.
    lines = shared.command("keys", "sync", write(shared.folder / "keys.json", entry))
    assert lines[0]["level"] == "warning"
    assert lines[0]["id"] == key_id
    assert lines[-1]["changed"] is False
    assert listed(shared)[key_id]["revoked_at"]
    assert "no key has the id" in keys(shared, "revoke", "000000000000", fails=1)[0]


def test_the_file_does_not_touch_what_was_made_by_hand(shared: Site, web: Process) -> None:
    _, key = add(shared, "by-hand")
    shared.command("keys", "sync", write(shared.folder / "none.json"))
    assert status(web, "/predict", key) == 200


def test_wrong_missing_and_revoked_keys_get_the_same_answer(shared: Site, web: Process) -> None:
    key_id, key = add(shared, "gone")
    keys(shared, "revoke", key_id)
    answers = []
    for headers in ({}, {"x-api-key": "wrong"}, {"x-api-key": key}, {"x-api-key": ""}):
        answer = web.http.get("/predict", headers=headers)
        body = answer.json()
        del body["request_id"]
        names = {name for name in answer.headers if not name.startswith("ratelimit-")}
        answers.append((answer.status_code, body, names, answer.headers["www-authenticate"]))
    assert answers[0][0] == 401
    assert answers == answers[:1] * 4


def test_a_scope_that_is_missing_is_named(shared: Site, web: Process) -> None:
    _, key = add(shared, "narrow", "--scope", "predict")
    headers = {"x-api-key": key}
    assert web.http.post("/predict", json={"text": "good"}, headers=headers).status_code == 200
    assert web.http.get("/model/info", headers=headers).status_code == 200
    for method, path, scope in (
        ("GET", "/items", "items"),
        ("POST", "/items", "items"),
        ("POST", "/api/v1/jobs/trigger", "jobs"),
        ("GET", f"/api/v1/jobs/status/{'0' * 32}", "jobs"),
    ):
        answer = web.http.request(method, path, json={}, headers=headers)
        assert answer.status_code == 403, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["scope"] == scope
        assert scope in answer.json()["detail"]
    assert web.http.get("/nope", headers=headers).status_code == 404
    _, wide = add(shared, "wide", "--scope", "items", "--scope", "jobs")
    assert status(web, "/items", wide) == 200
    assert status(web, "/predict", wide) == 403


@pytest.mark.slow
def test_the_file_changes_scopes_and_limits(shared: Site) -> None:
    digest = hashlib.sha256(b"of-the-file").hexdigest()
    entry = {"client": "one", "key_sha256": digest, "scopes": ["jobs"], "rate_limit_per_min": 7}
    path = shared.folder / "keys.json"
    assert shared.command("keys", "sync", write(path, entry))[-1]["added"] == 1
    assert listed(shared)[digest[:12]]["scopes"] == ["jobs"]
    assert listed(shared)[digest[:12]]["rate_limit_per_min"] == 7
    assert shared.command("keys", "sync", write(path, entry))[-1]["changed"] is False
    del entry["scopes"]
    assert shared.command("keys", "sync", write(path, entry))[-1]["changed"] is True
    assert listed(shared)[digest[:12]]["scopes"] == ["predict", "jobs", "items"]


@pytest.mark.parametrize(
    "options",
    [
        ("a b",),
        ("good", "--scope", "admin"),
        ("good", "--rate-limit", "0"),
        ("good", "--label", "two\nlines"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(shared: Site, options: tuple[str, ...]) -> None:
    before = shared.one("SELECT count(*) FROM api_keys")
    keys(shared, "add", *options, fails=1)
    assert shared.one("SELECT count(*) FROM api_keys") == before


@pytest.mark.slow
def test_the_services_own_user_can_only_read_keys(postgres: Postgres, empty_site: Site) -> None:
    with roles(postgres, "airlift_app"):
        empty_site.command("migrate")
        url = empty_site.environment["DATABASE_URL"]
        key_id, key = add(empty_site, "one")
        try:
            empty_site.environment["DATABASE_URL"] = url.replace("_owner@", "_app@")
            web = empty_site.serve(AUTH_ENABLED="true")
            assert status(web, "/predict", key) == 200
            for command in (("add", "two"), ("revoke", key_id)):
                assert "permission denied" in keys(empty_site, *command, fails=1)[0]
            for statement in ("DELETE FROM api_keys", "UPDATE api_keys SET scopes = NULL"):
                with (
                    empty_site.connect("airlift_app") as connection,
                    pytest.raises(psycopg.errors.InsufficientPrivilege),
                ):
                    connection.execute(statement)
        finally:
            empty_site.stop_all()
            with empty_site.connect() as connection:
                connection.execute("DROP OWNED BY airlift_app")


@pytest.mark.slow
def test_sync_undoes_what_a_restore_took_back(shared: Site) -> None:
    """After a restore, one key is missing and a key revoked later is valid again."""
    lost, back, kept = (hashlib.sha256(word).hexdigest() for word in (b"lost", b"back", b"kept"))
    path = shared.folder / "keys.json"
    entries = {
        name: {"client": name, "key_sha256": digest}
        for name, digest in (("lost", lost), ("back", back), ("kept", kept))
    }
    shared.command("keys", "sync", write(path, *entries.values()))
    shared.command("keys", "sync", write(path, entries["lost"], entries["kept"]))
    assert listed(shared)[back[:12]]["revoked_by"] == "file"
    with shared.connect() as connection:
        connection.execute("DELETE FROM api_keys WHERE client = 'lost'")
        connection.execute(
            "UPDATE api_keys SET revoked_at = NULL, revoked_by = NULL WHERE client = 'back'"
        )
    done = shared.command("keys", "sync", write(path, entries["lost"], entries["kept"]))[-1]
    assert (done["added"], done["revoked"]) == (1, 1)
    rows = listed(shared)
    assert [rows[one[:12]]["revoked_by"] for one in (lost, back, kept)] == [None, "file", None]
