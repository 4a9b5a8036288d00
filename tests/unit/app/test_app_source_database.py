"""Database sources, against a real Postgres with a role that may only read one table."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from app.sources.base import (
    Access,
    Fault,
    Limits,
    PermanentSourceError,
    RefusedSourceError,
    SourceError,
    TransientSourceError,
)
from app.sources.database import DatabaseSource, numbered
from app.sources.schemas import DatabaseConfig, RegisteredDatabase
from tests.unit.app.appkit import PASSWORD, Process, Site

pytestmark = pytest.mark.docker

LIMITS = Limits(max_bytes=2_000_000, max_records=1000, timeout_seconds=2)
SECRET = "row-that-nobody-may-see"
READER = "crm_reader"


@pytest.fixture(scope="module")
def crm(shared: Site) -> Iterator[str]:
    """Create a client's database: one table that the reader may read, and one that it may not."""
    with shared.connect() as connection:
        connection.execute(f"CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}'")
        connection.execute("CREATE TABLE reviews (id int, comment text, made date)")
        connection.execute(
            """INSERT INTO reviews VALUES (1, 'I love it', '2026-01-01'),
               (2, 'terrible and broken', '2026-02-02'), (3, NULL, '2026-03-03')"""
        )
        connection.execute("CREATE TABLE salaries (secret text)")
        connection.execute("INSERT INTO salaries VALUES (%s)", (SECRET,))
        connection.execute(
            """CREATE FUNCTION sneaky() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
               $$ BEGIN DELETE FROM reviews; RETURN 1; END $$"""
        )
        connection.execute(f"GRANT SELECT ON reviews TO {READER}")
    (shared.folder / "secrets" / "database_source_crm").write_text(f"{PASSWORD}\n")
    yield f"postgresql://{READER}@127.0.0.1:{shared.postgres.port}/{shared.database}"
    with shared.connect() as connection:
        connection.execute(f"DROP OWNED BY {READER}")
        connection.execute(f"DROP ROLE {READER}")


@pytest.fixture
def source(shared: Site, crm: str) -> DatabaseSource:
    registered = {"crm": RegisteredDatabase(url=crm)}
    return DatabaseSource(registered, LIMITS, shared.folder / "secrets")


def rows(source: DatabaseSource, query: str, **params: Any) -> list[Any]:
    config = DatabaseConfig(source="crm", query=query, params=params)
    refusal = source.check(config, "billing")
    assert refusal is None, refusal
    collection = anyio.run(source.collect, config, "billing")
    found = [what for batch in collection.batches for _, what in batch]
    assert collection.origin["rows"] == len(found)
    return found


QUERIES: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("SELECT id, comment FROM reviews ORDER BY id", {}, [1, 2, 3]),
    ("select id from reviews where made > :since order by 1;", {"since": "2026-01-01"}, [2, 3]),
    ("SELECT id FROM reviews WHERE id IN (:a, :b) ORDER BY 1", {"a": 1, "b": 3}, [1, 3]),
    ("SELECT id FROM reviews WHERE comment LIKE 'I%' AND '12:30' <> :x::text", {"x": "%"}, [1]),
    ("WITH a AS (SELECT 1 AS id) SELECT id FROM a -- the end", {}, [1]),
    ("VALUES (1), (2)", {}, [None, None]),
    ("SELECT id FROM reviews WHERE :yes AND id < :most", {"yes": True, "most": 1.5}, [1]),
]


@pytest.mark.parametrize(("query", "params", "ids"), QUERIES)
def test_b8_a_query_gives_records(
    source: DatabaseSource, query: str, params: dict[str, Any], ids: list[Any]
) -> None:
    assert [row.get("id") for row in rows(source, query, **params)] == ids


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("INSERT INTO reviews VALUES (4, 'x')", "not-read-only"),
        ("DELETE FROM reviews RETURNING id", "not-read-only"),
        ("WITH gone AS (DELETE FROM reviews RETURNING id) SELECT * FROM gone", "not-read-only"),
        ("SELECT sneaky() AS id", "not-read-only"),
        ("SELECT * INTO stolen FROM reviews", "not-read-only"),
        ("SELECT id FROM reviews FOR UPDATE", "not-read-only"),
        ("DROP TABLE reviews", "not-read-only"),
        ("SET default_transaction_read_only = off", "not-read-only"),
        ("COMMIT", "not-read-only"),
        ("SELECT set_config('transaction_read_only', 'off', false), sneaky()", "query-failed"),
        ("EXPLAIN ANALYZE DELETE FROM reviews", "not-read-only"),
        ("COPY reviews TO STDOUT", "not-read-only"),
        ("SELECT 1; DELETE FROM reviews", "multiple-statements"),
        ("SELECT 1; COMMIT; DELETE FROM reviews; SELECT 1", "multiple-statements"),
        ("SELECT 1) AS found) AS lines; DELETE FROM reviews; --", "query-failed"),
        ("SELECT 1) AS found) AS lines UNION ALL SELECT * FROM ((SELECT 'x'", "query-failed"),
        ("SELECT 1 /*", "query-failed"),
        ("SELECT secret FROM salaries", "permission-denied"),
        ("SELECT pg_read_file('/etc/passwd')", "permission-denied"),
        ("SELECT nothing FROM reviews", "query-failed"),
        ("SELECT comment::int FROM reviews", "query-failed"),
        (" ", "not-read-only"),
        (" -- nothing", "not-read-only"),
    ],
)
def test_b8_what_does_more_than_read_is_refused(
    shared: Site, source: DatabaseSource, query: str, code: str
) -> None:
    with pytest.raises(PermanentSourceError) as caught:
        rows(source, query)
    assert caught.value.code == code
    # The message is the service's own: the server's would repeat the data.
    assert "love" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert shared.one("SELECT count(*) FROM reviews") == 3
    assert shared.one("SELECT to_regclass('stolen')") is None


@pytest.mark.parametrize(
    ("query", "kind", "code"),
    [
        ("SELECT pg_sleep(60)", TransientSourceError, "timeout"),
        (
            """SELECT set_config('statement_timeout', '0', false), n,
                  CASE WHEN n > 200 THEN pg_sleep(60)::text END FROM generate_series(1, 300) n""",
            TransientSourceError,
            "timeout",
        ),
        ("SELECT n FROM generate_series(1, 2000) n", RefusedSourceError, "too-many-records"),
        (
            "SELECT repeat('x', 100000) AS text FROM generate_series(1, 100)",
            RefusedSourceError,
            "source-too-large",
        ),
    ],
)
def test_b8_long_wide_and_slow_results_are_bounded(
    source: DatabaseSource, query: str, kind: type[SourceError], code: str
) -> None:
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        rows(source, query)
    assert caught.value.code == code
    assert time.monotonic() - started < 30, "the query was not cancelled"


def test_b8_a_value_that_is_too_long_does_not_travel(shared: Site, crm: str) -> None:
    """The query needs time to build the value on a busy machine, so allow 60 s."""
    registered = {"crm": RegisteredDatabase(url=crm)}
    limits = dataclasses.replace(LIMITS, timeout_seconds=60)
    source = DatabaseSource(registered, limits, shared.folder / "secrets")
    with pytest.raises(PermanentSourceError) as caught:
        rows(source, "SELECT repeat('x', 20000000) AS text")
    assert caught.value.code == "no-valid-record"


def test_b8_odd_values_are_records_or_counted(source: DatabaseSource) -> None:
    found = rows(
        source,
        """SELECT 'NaN'::float8 AS a, 10::numeric ^ 300 AS b, now() AS c, '\\xff'::bytea AS d,
                  CASE WHEN n = 2 THEN repeat('x', 300000) ELSE 'a' END AS text
           FROM generate_series(1, 2) n""",
    )
    assert found[0]["text"] == "a"
    assert isinstance(found[1], Fault)


def test_b8_a_password_that_is_wrong_is_not_told(shared: Site, crm: str, tmp_path: Path) -> None:
    (tmp_path / "database_source_crm").write_text("a-wrong-password")
    source = DatabaseSource({"crm": RegisteredDatabase(url=crm)}, LIMITS, tmp_path)
    with pytest.raises(TransientSourceError) as caught:
        rows(source, "SELECT 1")
    assert caught.value.code == "database-unavailable"
    assert "password" not in str(caught.value)
    assert READER not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"source": "other", "query": "SELECT 1"}, "source"),
        ({"source": "crm"}, "query"),
        ({"source": "crm", "query": "SELECT 1", "params": {"a": 1}}, "params.a"),
    ],
)
def test_b8_what_is_wrong_is_named_before_a_job_is_made(
    source: DatabaseSource, config: dict[str, Any], field: str
) -> None:
    refusal = source.check(DatabaseConfig(**config), "billing")
    assert refusal is not None
    assert refusal.field == field


def test_b8_a_source_belongs_to_its_clients(shared: Site, crm: str) -> None:
    access = Access({"database:crm": ["billing"]})
    registered = {"crm": RegisteredDatabase(url=crm)}
    source = DatabaseSource(registered, LIMITS, shared.folder / "secrets", access)
    config = DatabaseConfig(source="crm", query="SELECT 1")
    assert source.check(config, "billing") is None
    refusal = source.check(config, "other")
    assert refusal is not None
    assert "crm" not in refusal.message
    with pytest.raises(PermanentSourceError):
        anyio.run(source.collect, config, "other")


def test_only_names_that_are_given_are_parameters() -> None:
    assert numbered("SELECT ':a', x::a, :a, :ab, :b ;", {"a": 1, "b": 2}) == (
        "SELECT '$1', x::a, $1, :ab, $2 ",
        [1, 2],
    )


@pytest.mark.parametrize("params", [{"a": 2**64}, {"a": "\x00"}, {"a b": 1}, {"a": [1]}, {"a": {}}])
def test_odd_parameters_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="params"):
        DatabaseConfig(source="crm", query="SELECT :a", params=params)


@pytest.fixture(scope="module")
def web(shared: Site, crm: str) -> Process:
    shared.environment["DATABASE_SOURCES"] = json.dumps({"crm": {"url": crm}})
    shared.worker()
    return shared.serve()


def trigger(web: Process, query: str) -> Any:
    config = {"source": "crm", "query": query}
    return web.http.post("/api/v1/jobs/trigger", json={"source_type": "database", "config": config})


def test_b8_a_job_reads_a_registered_database(shared: Site, web: Process) -> None:
    job = trigger(web, "SELECT id, comment FROM reviews").json()["job_id"]
    shared.wait_for(web, job, "succeeded")
    result = web.http.get(f"/api/v1/jobs/result/{job}").json()["result"]
    assert result["sentiment"]["counts"] == {"negative": 1, "neutral": 0, "positive": 1}
    assert result["source"] == {"type": "database", "source": "crm", "rows": 3}
    assert result["errors"]["reasons"] == {"no text": 1}


def test_b8_a_job_that_writes_is_dead_at_once(shared: Site, web: Process) -> None:
    job = trigger(web, f"DELETE FROM reviews WHERE comment = '{SECRET}'").json()["job_id"]
    status = shared.wait_for(web, job, "dead")
    assert status["attempts"] == 1
    assert status["error"]["code"] == "not-read-only"
    everything = "".join(process.log.read_text() for process in shared.processes)
    assert SECRET not in everything
    assert PASSWORD not in everything
