"""Migrations, rights and the schema's version."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from app.db import schema
from tests.unit.app.appkit import PASSWORD, Postgres, Site


@pytest.mark.parametrize(
    ("version", "lowest", "fits"),
    [
        (schema.HEAD, schema.LOWEST_COMPATIBLE, True),
        (schema.HEAD + 1, schema.HEAD, True),
        (schema.HEAD + 2, schema.HEAD + 1, False),
        (schema.HEAD - 1, 0, False),
    ],
)
def test_code_is_at_home_between_lowest_compatible_and_head(
    version: int, lowest: int, fits: bool
) -> None:
    assert (schema.judge(version, lowest) is None) is fits


def test_the_constants_are_those_of_the_newest_migration() -> None:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    from app.db.migrate import config  # noqa: PLC0415

    scripts = ScriptDirectory.from_config(config())
    assert scripts.get_current_head() == schema.revision(schema.HEAD)
    names = [script.revision for script in scripts.walk_revisions()]
    assert names == [schema.revision(number) for number in range(schema.HEAD, 0, -1)]


@pytest.mark.docker
def test_the_migration_records_what_the_constants_say(site: Site) -> None:
    row = site.one(
        "SELECT version, lowest_compatible FROM schema_version ORDER BY version DESC LIMIT 1"
    )
    assert row == (schema.HEAD, schema.LOWEST_COMPATIBLE)


@pytest.mark.docker
@pytest.mark.slow
def test_migrating_twice_changes_nothing(empty_site: Site) -> None:
    assert empty_site.command("migrate")[-1]["changed"] is True
    assert empty_site.command("migrate")[-1]["changed"] is False


@pytest.mark.docker
def test_two_migrations_at_a_time_take_turns(empty_site: Site) -> None:
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: empty_site.command("migrate")[-1], range(3)))
    assert sorted(run["changed"] for run in runs) == [False, False, True]


@pytest.mark.docker
def test_a_schema_of_a_later_release_is_left_alone(empty_site: Site) -> None:
    """After a rollback, an installation meets a schema of a later release."""
    empty_site.command("migrate")
    with empty_site.connect() as connection:
        connection.execute("INSERT INTO schema_version VALUES (9, 1)")
        connection.execute("UPDATE alembic_version SET version_num = '0009'")
    assert empty_site.command("migrate")[-1]["changed"] is False
    with empty_site.connect() as connection:
        connection.execute("UPDATE schema_version SET lowest_compatible = 9 WHERE version = 9")
    lines = empty_site.command("migrate", fails=1)
    assert "supports releases of schema 9 or later, this release has 2" in lines[-1]["reason"]


@pytest.mark.docker
def test_a_failed_migration_says_why(empty_site: Site) -> None:
    with empty_site.connect() as connection:
        connection.execute("CREATE TABLE items (wrong integer)")
    lines = empty_site.command("migrate", fails=1)
    assert 'relation "items" already exists' in lines[-1]["reason"]
    assert empty_site.one("SELECT to_regclass('jobs')") is None


@pytest.mark.docker
def test_a_wrong_password_is_told_at_once(empty_site: Site) -> None:
    (empty_site.folder / "secrets" / "database_password").write_text("wrong")
    lines = empty_site.command("migrate", fails=1)
    assert "authentication failed" in lines[-1]["reason"]
    assert "wrong" not in lines[-1]["reason"]


@pytest.mark.docker
@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ("DELETE FROM schema_version WHERE version > 1", 503, "run the migrations"),
        ("DROP TABLE schema_version", 503, "run the migrations"),
        ("INSERT INTO schema_version VALUES (8, 1)", 200, "ok"),
        ("INSERT INTO schema_version VALUES (9, 9)", 503, "supports releases of schema 9 or later"),
    ],
)
def test_readiness_looks_at_the_schema(
    schema_web: Site, change: str, status: int, said: str
) -> None:
    web = schema_web.processes[0]
    with schema_web.connect() as connection, connection.transaction(force_rollback=False):
        connection.execute("CREATE TABLE keep AS TABLE schema_version")
        connection.execute(change)
    try:
        answer = web.http.get("/health/ready")
    finally:
        with schema_web.connect() as connection:
            connection.execute("DROP TABLE IF EXISTS schema_version")
            connection.execute("ALTER TABLE keep RENAME TO schema_version")
    assert answer.status_code == status
    assert said in answer.json()["checks"]["schema"]


@pytest.fixture(scope="module")
def schema_web(shared: Site) -> Site:
    shared.serve()
    return shared


@contextlib.contextmanager
def roles(postgres: Postgres, *names: str) -> Iterator[None]:
    with postgres.connect() as connection:
        for name in names:
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    try:
        yield
    finally:
        with postgres.connect() as connection:
            for name in names:
                connection.execute(f"DROP ROLE {name}")


@pytest.mark.docker
def test_each_role_may_do_just_what_it_needs(postgres: Postgres, empty_site: Site) -> None:
    with roles(postgres, "airlift_app", "airlift_monitor", "airlift_reader"):
        empty_site.command("migrate")
        try:
            _check_rights(empty_site)
        finally:
            empty_site.stop_all()
            with empty_site.connect() as connection:
                connection.execute("DROP OWNED BY airlift_app, airlift_monitor, airlift_reader")


def _check_rights(site: Site) -> None:
    url = site.environment["DATABASE_URL"].replace("airlift_owner@", "airlift_app@")
    web = site.serve(DATABASE_URL=url)
    assert web.http.get("/health/ready").json()["status"] == "ready"
    assert web.http.post("/items", json={"name": "demo"}).status_code == 201
    job = site.trigger(web)
    site.worker(DATABASE_URL=url)
    site.wait_for(web, job, "succeeded")
    forbidden = {
        "airlift_app": (
            "CREATE TABLE mine (a integer)",
            "DROP TABLE items",
            "ALTER TABLE jobs ADD COLUMN a integer",
            "INSERT INTO api_keys (key_hash, client) VALUES (sha256('x'), 'me')",
            "UPDATE schema_version SET version = 7",
        ),
        "airlift_monitor": ("SELECT * FROM jobs", "SELECT * FROM api_keys"),
        "airlift_reader": (
            "SELECT client FROM items",
            "SELECT 1 FROM jobs",
            "SELECT 1 FROM job_rows",
            "SELECT 1 FROM api_keys",
            "INSERT INTO items (client, name) VALUES ('x', 'x')",
        ),
    }
    allowed = {"airlift_reader": "SELECT id, name, created_at FROM items"}
    for user, statements in forbidden.items():
        with site.connect(user) as connection:
            connection.execute(allowed.get(user, "SELECT version FROM schema_version"))
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
    with site.connect() as connection:
        connection.execute("CREATE TABLE of_a_later_migration (a integer)")
    with site.connect("airlift_app") as connection:
        connection.execute("INSERT INTO of_a_later_migration VALUES (1)")
