"""The cost of a claim does not grow with jobs that wait for another host or release."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.jobs import repository
from tests.unit.app.appkit import Site

pytestmark = pytest.mark.docker

ROWS = """INSERT INTO jobs (id, client, source_type, payload_version, config, needs, max_attempts,
        run_after)
    SELECT gen_random_uuid(), 'x', 'file', {version}, '{{}}', {needs}, 5,
        now() - make_interval(hours => 2) + make_interval(secs => n::float8 / 1000)
    FROM generate_series(1, {count}) AS n"""
# An index needs a few pages per level; the other jobs' rows fill thousands.
FEW = 600


def buffers(site: Site, statement: str, parameters: tuple[Any, ...]) -> int:
    """Return how many pages a statement reads; its changes are rolled back."""
    with site.connect() as connection, connection.transaction(force_rollback=True):
        found = connection.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters
        ).fetchone()[0]
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize(
    ("needs", "version"),
    [("'root:elsewhere'", 1), ("NULL", 99)],
    ids=["another-host", "another-release"],
)
def test_a_claim_does_not_read_jobs_that_this_worker_may_not_take(
    site: Site, needs: str, version: int, analysed: bool
) -> None:
    with site.connect() as connection:
        connection.execute(ROWS.format(count=100_000, needs=needs, version=version))
        connection.execute(ROWS.format(count=3, needs="'root:inbox'", version=1))
        if analysed:
            connection.execute("ANALYZE jobs")
    available = ["root:inbox", "root:other"]
    claim = repository.claim_parameters("me", 30, available)
    assert buffers(site, repository.CLAIM, claim) < FEW
    due = repository.due_parameters(available)
    assert buffers(site, repository.DUE_SECONDS, due) < FEW


def test_a_claim_does_not_read_all_the_jobs_that_it_may_take(site: Site) -> None:
    with site.connect() as connection:
        connection.execute(ROWS.format(count=100_000, needs="NULL", version=1))
    claim = repository.claim_parameters("me", 30, ["root:inbox"])
    assert buffers(site, repository.CLAIM, claim) < FEW


def test_the_job_that_is_due_longest_comes_first_whatever_it_needs(site: Site) -> None:
    with site.connect() as connection:
        for place, needs in enumerate(("root:inbox", None, "root:elsewhere", "root:inbox", None)):
            connection.execute(
                """INSERT INTO jobs (id, client, source_type, payload_version, config, needs,
                       max_attempts, run_after)
                   VALUES (gen_random_uuid(), %s, 'file', 1, '{}', %s, 5,
                       now() - make_interval(secs => %s))""",
                (str(place), needs, 100 - place),
            )
        parameters = repository.claim_parameters("me", 30, ["root:inbox"])
        taken = []
        while row := connection.execute(repository.CLAIM, parameters).fetchone():
            taken.append(row[2])
    assert taken == ["0", "1", "3", "4"]


def test_workers_that_claim_at_one_moment_each_get_a_job(site: Site) -> None:
    """A job that another worker has just locked must be skipped, not end the search."""
    with site.connect() as connection:
        connection.execute(ROWS.format(count=2, needs="NULL", version=1))
    parameters = repository.claim_parameters("me", 30, [])
    with site.connect() as one, site.connect() as other, one.transaction(), other.transaction():
        first = one.execute(repository.CLAIM, parameters).fetchone()
        second = other.execute(repository.CLAIM, parameters).fetchone()
        assert first
        assert second
        assert first[0] != second[0]
