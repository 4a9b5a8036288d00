"""Shared and cached work: each request that starts after a change sees the change."""

from __future__ import annotations

import asyncio
import json
import select
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.db.pool import Database
from app.db.redis import RedisGate
from app.flight import SingleFlight, Together
from app.http.health import Health
from app.jobs.hints import HintSender
from app.main import create_app
from app.observability import metrics
from app.observability.access import AccessLog
from app.reports.renderer import Renderer
from app.settings import Settings
from tests.unit.app.appkit import PASSWORD, Client, Redis, Site

# ---------------------------------------------------------------- one flight, one batch


def test_one_flight_for_all_who_ask_meanwhile_and_a_new_one_after_it() -> None:
    async def run() -> None:
        flight: SingleFlight[str, int] = SingleFlight()
        gate, count = asyncio.Event(), 0

        async def work() -> int:
            nonlocal count
            count += 1
            await gate.wait()
            return count

        askers = [asyncio.create_task(flight.run("a", work)) for _ in range(20)]
        other = asyncio.create_task(flight.run("b", work))
        await asyncio.sleep(0.01)
        # The first caller is cancelled; the others still get the result.
        askers[0].cancel()
        gate.set()
        assert set(await asyncio.gather(*askers[1:])) == {2}
        assert await other == 2
        assert await flight.run("a", work) == 3

    asyncio.run(run())


def test_a_flight_that_fails_fails_for_its_askers_only() -> None:
    async def run() -> None:
        flight: SingleFlight[None, int] = SingleFlight()

        async def fail() -> int:
            raise ValueError("once")

        async def work() -> int:
            return 1

        found = await asyncio.gather(
            *(flight.run(None, fail) for _ in range(3)), return_exceptions=True
        )
        assert [type(error) for error in found] == [ValueError] * 3
        assert await flight.run(None, work) == 1

    asyncio.run(run())


def test_simultaneous_questions_share_a_batch() -> None:
    async def run() -> None:
        batches: list[list[int]] = []
        gate = asyncio.Event()

        async def ask(batch: list[int]) -> list[int]:
            batches.append(batch)
            await gate.wait()
            return [10 * question for question in batch]

        together = Together[int, int](ask, most=4)
        first = [asyncio.create_task(together.ask(n)) for n in range(3)]
        await asyncio.sleep(0.01)
        # These arrive during the first batch, and one of them is cancelled.
        second = [asyncio.create_task(together.ask(n)) for n in range(3, 8)]
        await asyncio.sleep(0)
        second[0].cancel()
        gate.set()
        assert await asyncio.gather(*first) == [0, 10, 20]
        assert await asyncio.gather(*second[1:]) == [40, 50, 60, 70]
        assert batches == [[0, 1, 2], [3, 4, 5, 6], [7]]
        assert not together.busy

    asyncio.run(run())


def test_a_batch_that_fails_fails_for_those_in_it_only() -> None:
    async def run() -> None:
        async def ask(batch: list[int]) -> list[int]:
            if 1 in batch:
                raise ValueError("once")
            return batch

        together = Together[int, int](ask, most=2)
        found = await asyncio.gather(
            *(together.ask(n) for n in (0, 1, 2, 3, 4)), return_exceptions=True
        )
        assert [type(each) for each in found[:2]] == [ValueError] * 2
        assert found[2:] == [2, 3, 4]

    asyncio.run(run())


@pytest.mark.docker
def test_b7_hints_that_go_together_all_arrive(redis: Redis) -> None:
    settings = Settings(
        redis_url=f"redis://127.0.0.1:{redis.port}/15", redis_password=SecretStr(PASSWORD)
    )

    async def run() -> None:
        gate = RedisGate(settings)
        sender = HintSender(gate)
        try:
            needs = f"root:{uuid4()}"
            sent = await asyncio.gather(*(sender.send(str(n), needs) for n in range(50)))
            assert all(sent)
            (entries,) = await gate.run(("XRANGE", f"airlift:jobs:{needs}", "-", "+"))
            assert sorted(int(fields["job"]) for _, fields in entries) == list(range(50))
        finally:
            await gate.close()

    asyncio.run(run())


# ---------------------------------------------------------------- probes, scrapes, the document


async def many(app: FastAPI, path: str, count: int = 30) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return list(await asyncio.gather(*(client.get(path) for _ in range(count))))


def counting(work: Callable[..., Any], calls: list[None]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        calls.append(None)
        return work(*arguments)

    return counted


def test_a4_probes_at_one_time_share_a_look_and_the_next_one_sees_a_change(
    settings: Settings, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings.model_copy(update={"drain_file": tmp_path / "drain"}))
    looks: list[None] = []
    monkeypatch.setattr(Health, "_look", counting(Health._look, looks))
    found = asyncio.run(many(app, "/health/ready"))
    assert len(looks) == 1
    assert {answer.status_code for answer in found} == {503}
    assert all("drain" not in answer.json()["checks"] for answer in found)
    (tmp_path / "drain").touch()
    assert Client(app).get("/health/ready").json()["checks"]["drain"]
    assert len(looks) == 2


def test_a5_scrapes_at_one_time_share_a_collection_and_the_next_one_counts_on(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    collections: list[None] = []
    monkeypatch.setattr(metrics, "render", counting(metrics.render, collections))
    found = asyncio.run(many(app, "/metrics"))
    assert len(collections) < len(found) / 2
    assert {answer.status_code for answer in found} == {200}
    for value in (1, 2, 3):
        metrics.REFUSED.labels("of-a-test").inc()
        text = Client(app).get("/metrics").text
        assert f'app_requests_refused_total{{limit="of-a-test"}} {value}.0' in text


def test_a18_the_document_is_encoded_once_and_304_for_who_has_it(
    client: Client, app: FastAPI
) -> None:
    answer = client.get("/openapi.json")
    assert answer.json() == json.loads(json.dumps(app.openapi()))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-cache"
    tag = answer.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        again = client.get("/openapi.json", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/openapi.json", headers={"if-none-match": '"other"'}).content
    head = client.request("HEAD", "/openapi.json")
    assert (head.status_code, head.headers["etag"]) == (200, tag)
    # An answer that is sent repeatedly must not collect headers.
    assert len(client.get("/openapi.json").headers) == len(answer.headers)


# ---------------------------------------------------------------- lines of requests


class _Output:
    def __init__(self) -> None:
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)

    def flush(self) -> None:
        pass


def test_b4_lines_share_writes_that_a_pipe_takes_in_one_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = _Output()
    nasty = 'a"\n{\u2028\ud800'

    async def run() -> None:
        log = AccessLog()
        for number in range(60):
            log.write(
                request_id=f"request-{number}",
                method="GET",
                route="/items",
                status=200,
                duration_ms=0.25,
                client=nasty if number % 2 else None,
                peer=nasty,
            )
        assert output.writes == []
        await asyncio.sleep(0)

    monkeypatch.setattr(sys, "stdout", output)
    asyncio.run(run())
    monkeypatch.undo()
    assert 1 < len(output.writes) < 30
    assert all(len(piece) <= 4096 and piece.endswith("\n") for piece in output.writes)
    lines = [json.loads(line) for line in "".join(output.writes).splitlines()]
    assert [line["request_id"] for line in lines] == [f"request-{n}" for n in range(60)]
    for number, line in enumerate(lines):
        assert (line["client"], line["peer"]) == (nasty if number % 2 else None, nasty)
        age = datetime.now(UTC) - datetime.fromisoformat(line["timestamp"])
        assert abs(age) < timedelta(minutes=1)


# ---------------------------------------------------------------- connections, reports


@pytest.mark.docker
def test_a_connection_that_postgres_ended_is_found_before_it_is_used(site: Site) -> None:
    settings = Settings(
        database_url=site.environment["DATABASE_URL"], database_password=SecretStr(PASSWORD)
    )

    async def run() -> None:
        database = Database(settings, application="of-a-test")
        await database.open()
        try:
            for _ in range(3):
                async with database.connection() as connection:
                    socket, pid = connection.fileno(), connection.info.backend_pid
                site.one("SELECT pg_terminate_backend(%s)", pid)
                # This end learns about it a moment later.
                assert await asyncio.to_thread(select.select, [socket], [], [], 20) != ([], [], [])
                found = await database.fetch_one("SELECT pg_backend_pid() AS pid")
                assert found is not None
                assert found["pid"] != pid
        finally:
            await database.close()

    asyncio.run(run())


@pytest.mark.docker
@pytest.mark.parametrize("form", ["csv", "json", "html", "pdf"])
def test_a11_a_kept_report_goes_with_its_result_and_its_job(shared: Site, form: str) -> None:
    web, worker = shared.serve(WEB_CONCURRENCY="1"), shared.worker()
    job = shared.trigger(web)
    shared.wait_for(web, job, "succeeded")
    path = f"/api/v1/jobs/{job}/report?format={form}"
    whole = web.http.get(path)
    assert whole.status_code == 200
    # The rows are deleted, so this answer comes from the cache.
    with shared.connect() as connection:
        connection.execute("DELETE FROM job_rows WHERE job_id = %s", (job,))
    assert web.http.get(path).content == whole.content
    for table, column, status in (("job_results", "job_id", 410), ("jobs", "id", 404)):
        with shared.connect() as connection:
            connection.execute(f"DELETE FROM {table} WHERE {column} = %s", (job,))
        assert web.http.get(path).status_code == status
    worker.stop()


def test_kept_reports_are_bounded_and_the_oldest_goes_first(app: FastAPI) -> None:
    renderer = Renderer(app.state.database, most_bytes=100)
    keys = [(uuid4(), datetime.now(UTC), "pdf") for _ in range(4)]
    for key, size in zip(keys, (40, 40, 40, 101), strict=True):
        renderer._keep(key, b"x" * size)
    assert list(renderer._kept) == keys[1:3]
    assert renderer._bytes == 80
    row = {"id": keys[1][0], "finished_at": keys[1][1]}
    found: Awaitable[bytes] = renderer.body("pdf", row)
    assert len(asyncio.run(_result(found))) == 40
    assert list(renderer._kept) == [keys[2], keys[1]]


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [((b"a", b"b"), b"ab"), ((b"x" * 262_144,), b"x" * 262_144), ((b"x" * 262_144, b"y"), None)],
)
def test_a_report_in_pieces_is_kept_if_it_is_small(
    app: FastAPI, pieces: tuple[bytes, ...], kept: bytes | None
) -> None:
    renderer = Renderer(app.state.database)
    row = {"id": uuid4(), "finished_at": datetime.now(UTC)}

    async def written() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def read() -> None:
        half = renderer.keeping("csv", row, written())
        await anext(half)
        # A reader that stops before the end leaves nothing in the cache.
        assert renderer.kept("csv", row) is None
        found = [piece async for piece in renderer.keeping("csv", row, written())]
        assert found == list(pieces)

    asyncio.run(read())
    assert renderer.kept("csv", row) == kept
    assert renderer.kept("json", row) is None


async def _result(found: Awaitable[bytes]) -> bytes:
    return await found
