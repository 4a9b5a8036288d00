"""One query of the database decides exactly which containers must run.

A real server, set up as on a site, with the service's own migrations and `keys sync`, which defines
a difference.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import yaml
from pydantic import SecretStr, ValidationError

from app.db import keys, migrate, schema
from app.settings import Settings
from bundle.builder.images import engine
from roles.postgres.module_utils import postgres_keys
from tests.unit.app.appkit import PASSWORD, eventually, free_port, image_of
from tests.unit.roles.conftest import ROLES, plugin
from tests.unit.site.test_postgres_backup import RUNNER, USER

app = plugin("app/filter_plugins/app.py")
START = """
initdb --pgdata /data/db --username postgres --auth-local peer --auth-host scram-sha-256 \\
    --encoding UTF8 --locale C --locale-provider builtin --builtin-locale C.UTF-8 --no-sync
echo 'host all all all scram-sha-256' >> /data/db/pg_hba.conf
exec postgres -D /data/db -c listen_addresses='*' -c fsync=off -c bytea_output=escape
"""
ACCOUNTS = [
    {"name": f"airlift_{one}", "password": PASSWORD} for one in ("owner", "app", "reader")
] + [{"name": "airlift_monitor", "password": PASSWORD, "member_of": ["pg_monitor"]}]


@dataclass
class Database:
    """A server, and the module that queries one database of it."""

    container: str
    port: int
    name: str = "airlift"

    def ask(self, **options: Any) -> dict[str, Any]:
        """Run the module as its own process, as on a host."""
        given = {"container": self.container, "user": USER, "database": self.name, **options}
        path = str(ROLES / "postgres/library/postgres_database.py")
        done = subprocess.run(
            [sys.executable, "-c", RUNNER, path]
            + [str(ROLES / role / "module_utils") for role in ("postgres", "site")],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
            env={"PATH": f"{Path(engine.docker()[0]).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        # This output appears with -vvv.
        assert PASSWORD not in done.stdout
        assert "SCRAM" not in done.stdout
        return answer

    def set(self, **options: Any) -> dict[str, Any]:
        """Run the module with the accounts, as the role does."""
        return self.ask(owner="airlift_owner", roles=ACCOUNTS, **options)

    def sql(self, text: str) -> None:
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="airlift_owner",
            password=PASSWORD,
            dbname=self.name,
        ) as connection:
            connection.execute(text)

    def settings(self) -> Settings:
        url = f"postgresql://airlift_owner@127.0.0.1:{self.port}/{quote(self.name)}"
        return Settings(database_url=url, database_password=SecretStr(PASSWORD))

    def held(self) -> dict[str, str]:
        """Query as `ask` does, but in this process, which is quicker."""
        params: dict[str, Any] = {"container": self.container, "user": USER, "database": self.name}
        params |= {"roles": [], "new": False}
        module = SimpleNamespace(params=params, check_mode=False)
        held: dict[str, str] = plugin("postgres/library/postgres_database.py").run(module)[
            "api_keys"
        ]
        return held


@pytest.fixture(scope="module")
def server() -> Iterator[Database]:
    """Provide a new server without accounts and databases."""
    engine.require()
    made = Database(f"airlift-unit-{uuid.uuid4().hex[:12]}", free_port())
    try:
        engine.run(
            [
                *("run", "--detach", "--name", made.container, "--label", "airlift.unit"),
                *("--publish", f"127.0.0.1:{made.port}:5432", "--user", USER),
                *("--tmpfs", "/data:uid=999", "--tmpfs", "/run/postgresql:uid=999"),
                *("--entrypoint", "sh", image_of("postgres"), "-ec", START),
            ],
            what="docker run",
        )
        eventually(lambda: not made.ask().get("failed"), what="Postgres")
        yield made
    finally:
        command = [*engine.docker(), "rm", "--force", "--volumes", made.container]
        subprocess.run(command, capture_output=True, check=False)


@pytest.fixture(scope="module")
def migrated(server: Database) -> Database:
    """Provide a server with the role's accounts and database, and the service's schema."""
    server.set()
    migrate.migrate(server.settings())
    return server


@pytest.fixture
def database(migrated: Database) -> Database:
    """Provide a database without keys."""
    migrated.sql("TRUNCATE api_keys")
    return migrated


pytestmark = pytest.mark.docker


def test_accounts_are_set_and_what_is_there_is_returned(server: Database) -> None:
    before = server.ask()
    assert (before["changed"], before["changes"]) == (False, [])
    assert "schema" not in before
    assert "api_keys" not in before
    expected = server.set(_ansible_check_mode=True)["changes"]
    made = server.set()
    assert made["changes"] == expected
    assert "create database airlift" in expected
    assert server.set()["changes"] == []
    migrate.migrate(server.settings())
    said = server.set()
    assert said["changed"] is False
    assert said["api_keys"] == {}
    assert said["schema"].pop("bytes") > 1_000_000
    assert said["schema"] == {
        "version": schema.HEAD,
        "lowest_compatible": schema.LOWEST_COMPATIBLE,
    }
    assert server.ask()["schema"].pop("bytes")
    # A changed account is still detected.
    drifted = [{**ACCOUNTS[0], "connection_limit": 3}]
    said = server.ask(owner="airlift_owner", roles=drifted, _ansible_check_mode=True)
    assert said["changes"] == ["correct role airlift_owner"]


def test_the_newest_schema_counts(database: Database) -> None:
    """After a rollback the schema is newer than the release, and keys have more columns."""
    entries = [entry(A)]
    sync(database, entries)
    database.sql("INSERT INTO schema_version VALUES (9, 4)")
    database.sql("ALTER TABLE api_keys ADD COLUMN later text DEFAULT 'x'")
    try:
        said = database.ask()
        assert (said["schema"]["version"], said["schema"]["lowest_compatible"]) == (9, 4)
        assert app.app_keys_differ(entries, said["api_keys"]) == []
    finally:
        database.sql("DELETE FROM schema_version WHERE version = 9")
        database.sql("ALTER TABLE api_keys DROP COLUMN later")


def test_a_database_may_have_any_name(database: Database) -> None:
    other = Database(database.container, database.port, 'a "b" -c')
    assert f"create database {other.name}" in other.set()["changes"]
    assert "schema" not in other.set()
    migrate.migrate(other.settings())
    assert other.ask()["schema"]["version"] == schema.HEAD


def test_no_answer_is_a_failure_but_not_in_check_mode(server: Database) -> None:
    gone = Database("airlift-unit-no-such", 1)
    for said in (gone.ask(), gone.set()):
        assert said["failed"]
        assert "No such container" in said["msg"]
    assert not gone.set(_ansible_check_mode=True).get("changed")
    # Before a cluster that this run would create, everything is due.
    expected = gone.set(_ansible_check_mode=True, new=True)
    assert expected["changed"]
    assert "create role airlift_owner" in expected["changes"]
    # Only check mode assumes a new cluster; a run queries it.
    assert gone.set(new=True)["failed"]


# --------------------------------------------------------------------------- keys
A, B, C = (hashlib.sha256(word).hexdigest() for word in (b"a", b"b", b"c"))


def entry(sha256: str, client: str = "acme", **more: Any) -> dict[str, Any]:
    return {"client": client, "key_sha256": sha256, **more}


def sync(database: Database, entries: list[dict[str, Any]]) -> bool:
    """Let the service set these keys; return whether it changed any."""
    with tempfile.NamedTemporaryFile("w") as file:
        json.dump(entries, file)
        file.flush()
        return any(keys.sync(database.settings(), Path(file.name)).values())


FULL = entry(B, "billing", scopes=["predict", "jobs"], rate_limit_per_min=60, label="night run, ~1")
LISTED = [entry(A), FULL]
BY_HAND = "INSERT INTO api_keys (key_hash, client, origin) VALUES (decode('{}', 'hex'), 'c', '{}')"
REVOKE = "UPDATE api_keys SET revoked_at = now(), revoked_by = '{}' WHERE key_hash = '\\x{}'"


@pytest.mark.parametrize(
    ("statement", "wanted", "differ"),
    [
        pytest.param("", LISTED, [], id="the same"),
        pytest.param("", LISTED[::-1], [], id="another order"),
        pytest.param(
            "",
            [entry(A), {**FULL, "scopes": ["jobs", "predict", "jobs"]}],
            [],
            id="scopes as a set",
        ),
        pytest.param(
            "", [entry(A, label=None, scopes=None, rate_limit_per_min=None), FULL], [], id="null"
        ),
        pytest.param("", [*LISTED, entry(C, "new")], [(C, "new")], id="added"),
        pytest.param("", [FULL], [(A, None)], id="removed"),
        pytest.param("", [], [(A, None), (B, None)], id="all removed"),
        pytest.param("", [entry(C), FULL], [(C, "acme"), (A, None)], id="replaced"),
        pytest.param("", [entry(A, "other"), FULL], [(A, "other")], id="client"),
        pytest.param("", [entry(A, scopes=["jobs"]), FULL], [(A, "acme")], id="fewer scopes"),
        pytest.param(
            "", [entry(A, scopes=list(keys.SCOPES)), FULL], [(A, "acme")], id="all scopes, named"
        ),
        pytest.param("", [entry(A, label="2027"), FULL], [(A, "acme")], id="label"),
        pytest.param("", [entry(A, rate_limit_per_min=60), FULL], [(A, "acme")], id="limit"),
        pytest.param("", [entry(A), entry(B, "billing")], [(B, "billing")], id="all left out"),
        pytest.param(REVOKE.format("file", A), LISTED, [(A, "acme")], id="revoked by a list"),
        pytest.param(REVOKE.format("file", A), [FULL], [], id="revoked and unlisted"),
        pytest.param(REVOKE.format("command", A), LISTED, [], id="revoked by hand"),
        pytest.param(REVOKE.format("command", A), [FULL], [], id="revoked by hand, unlisted"),
        pytest.param(BY_HAND.format(C, "command"), LISTED, [], id="made by hand"),
        pytest.param(
            BY_HAND.format(C, "command"), [*LISTED, entry(C, "c")], [(C, "c")], id="taken over"
        ),
        pytest.param(
            BY_HAND.format(C, "file"), LISTED, [(C, None)], id="a restore brought it back"
        ),
        pytest.param("DELETE FROM api_keys", LISTED, [(A, "acme"), (B, "billing")], id="all lost"),
    ],
)
def test_the_question_and_the_service_agree_what_differs(
    database: Database,
    statement: str,
    wanted: list[dict[str, Any]],
    differ: list[tuple[str, str | None]],
) -> None:
    sync(database, LISTED)
    if statement:
        database.sql(statement)
    held = database.held()
    expected = [f"{one[:12]} of {client}" if client else one[:12] for one, client in differ]
    assert sorted(app.app_keys_differ(wanted, held)) == sorted(expected)
    # The service must change something exactly if the query found a difference.
    assert sync(database, wanted) is bool(differ)
    assert app.app_keys_differ(wanted, database.held()) == []


def test_no_hash_leaves_the_host(database: Database) -> None:
    sync(database, LISTED)
    said = json.dumps(database.set())
    assert A[:12] in said
    assert A[:13] not in said
    assert hashlib.sha256(bytes.fromhex(A)).hexdigest() not in said


@pytest.mark.parametrize(
    "strange",
    [
        entry(A.upper()),
        entry(A[:-1]),
        {"key_sha256": A},
        {"client": "acme"},
        entry(A, "a b"),
        entry(A, "acme\n"),
        entry(A, scopes=[]),
        entry(A, scopes=["admin"]),
        entry(A, scopes="jobs"),
        entry(A, scopes=[["jobs"]]),
        entry(A, rate_limit_per_min="60"),
        entry(A, rate_limit_per_min=60.0),
        entry(A, rate_limit_per_min=True),
        entry(A, rate_limit_per_min=0),
        entry(A, rate_limit_per_min=1_000_001),
        entry(A, label=""),
        entry(A, label=7),
        entry(A, key="x"),
        {**entry(A), "client": None},
    ],
    ids=repr,
)
def test_what_the_service_may_refuse_or_convert_is_left_to_it(strange: dict[str, Any]) -> None:
    try:
        row = keys.KeyEntry(**strange).row()
    except ValidationError:
        pass
    else:
        # The service stores the entry, but with another value than in the list.
        assert json.dumps(row["rate_limit_per_min"]) != json.dumps(strange["rate_limit_per_min"])
    assert app.app_keys_differ([strange], {}) == [app.UNDECIDED]
    assert app.app_keys_differ(["acme"], {}) == [app.UNDECIDED]


def test_a_list_that_the_service_refuses_is_left_to_it() -> None:
    assert app.app_keys_differ([entry(A), entry(A, "other")], {}) == [app.UNDECIDED]
    assert app.app_keys_differ([entry(A), entry(B)], {}) == [
        f"{one[:12]} of acme" for one in (A, B)
    ]
    assert app.app_keys_differ([], None) == ["the keys of the database are not known"]
    assert app.app_keys_differ([], {}) == []


def test_the_digest_is_over_all_that_the_service_compares() -> None:
    compared = {*keys.KeyEntry(**FULL).row(), "key_hash"}
    assert compared == set(postgres_keys.COLUMNS)
    row = {**keys.KeyEntry(**FULL).row(), "key_hash": B}
    for column in compared:
        assert postgres_keys.digest(row) != postgres_keys.digest({**row, column: "x"})
    assert postgres_keys.digest({**row, "created_at": "x"}) == postgres_keys.digest(row)
    assert keys._DIGITS_OF_ID == postgres_keys.DIGITS_OF_ID


def loaded(database: Database) -> str:
    words = ["exec", database.container, "psql", "-U", "postgres", "-Atc"]
    done = engine.run([*words, "SELECT pg_conf_load_time()"], what="docker exec")
    return str(done).strip()


def allow(database: Database, line: str) -> None:
    """Replace the file of allowed connections, as the role does."""
    script = "sed '/# test/d' /data/db/pg_hba.conf > /data/new; echo \"$1 # test\" >> /data/new"
    words = ["exec", database.container, "sh", "-ec"]
    engine.run(
        [*words, f"{script}; mv /data/new /data/db/pg_hba.conf", "sh", line], what="docker exec"
    )


def read_again(database: Database) -> subprocess.CompletedProcess[str]:
    """Run the role's command on the server."""
    entries = yaml.safe_load((ROLES / "postgres/vars/main.yml").read_text())
    command = entries["postgres_containers"][0]["reload"]["command"]
    words = [*engine.docker(), "exec", "--user", USER, database.container, *command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_server_reads_again_who_may_connect(server: Database) -> None:
    allow(server, "host all all 192.0.2.7/32 scram-sha-256")
    before = loaded(server)
    done = read_again(server)
    assert done.returncode == 0, done.stderr
    eventually(lambda: loaded(server) != before, what="the reload")


def test_a_file_that_the_server_cannot_read_is_refused(server: Database) -> None:
    allow(server, "host all all 192.0.2.x/32 scram-sha-256")
    before = loaded(server)
    done = read_again(server)
    assert done.returncode != 0
    assert "pg_hba.conf, line " in done.stderr
    assert loaded(server) == before
