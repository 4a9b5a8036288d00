"""API keys, as on an installed site."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import socket
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.rows import DictRow
from pydantic import SecretStr

from app.db.pool import Database
from app.http import auth
from app.http.auth import PUBLIC, KeyStore
from app.http.gate import GateMiddleware
from app.http.problems import Problem
from app.http.ratelimit import RateLimiter
from app.main import create_app
from app.settings import Settings
from tests.unit.app.appkit import PASSWORD, Client, Process, Site, eventually, sample
from tests.unit.roles.conftest import load, plugin

KEYS = {"first-key-of-one": "one", "second-key-of-one": "one", "the-key-of-two": "two"}


def write_keys(path: Path, keys: dict[str, str]) -> str:
    entries = [
        {"client": client, "key_sha256": hashlib.sha256(key.encode()).hexdigest()}
        for key, client in keys.items()
    ]
    path.write_text(json.dumps(entries))
    return str(path)


@pytest.fixture(scope="module")
def web(shared: Site) -> Process:
    shared.command("keys", "sync", write_keys(shared.folder / "keys.json", KEYS))
    return shared.serve(AUTH_ENABLED="true", AUTH_CACHE_SECONDS="0.2")


def key(value: str) -> dict[str, str]:
    return {"x-api-key": value}


@pytest.mark.docker
def test_every_endpoint_but_the_public_ones_is_guarded(web: Process) -> None:
    document = web.http.get("/openapi.json").json()
    guarded = 0
    for template, methods in document["paths"].items():
        path = template.replace("{job_id}", str(uuid.uuid4()))
        for method in methods:
            answer = web.http.request(method.upper(), path)
            if template in PUBLIC:
                assert answer.status_code == 200, path
                continue
            guarded += 1
            assert answer.status_code == 401, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"]
    assert guarded >= 7
    for path in ("/docs", "/redoc", "/static-offline-docs/swagger-ui.css"):
        assert web.http.get(path).status_code == 200
    for path in ("/nope", "/Predict", "/predict/", "/health/../items", "/docs/x"):
        assert web.http.get(path).status_code == 401


@pytest.mark.docker
def test_what_a_sites_smoke_test_asks_is_answered_as_it_expects(web: Process) -> None:
    """A refused request would fail the smoke test, and the pipeline would then roll back."""
    asked = load("swap", "defaults/main.yml")
    ask = plugin("swap/library/swap_smoke.py").ask
    options = {"url": web.url, "ca_file": "", "timeout": 20, "key": "first-key-of-one"}
    for wanted in [*asked["swap_smoke_requests"], *asked["swap_smoke_more"]]:
        ask(options, wanted)
    for wanted in asked["swap_smoke_refused"]:
        ask({**options, "key": ""}, wanted)


@pytest.mark.docker
@pytest.mark.parametrize(
    "path",
    ["//predict", "/health//..//predict", "/health%2f..%2fpredict", "/./predict", "*", "/%00"],
)
def test_no_spelling_of_a_path_gets_round_the_guard(web: Process, path: str) -> None:
    connection = http.client.HTTPConnection(web.url.removeprefix("http://"))
    connection.request("GET", path)
    assert connection.getresponse().status in (400, 401)


@pytest.mark.docker
def test_good_keys_pass_and_others_do_not(web: Process) -> None:
    for good in KEYS:
        assert web.http.get("/predict", headers=key(good)).status_code == 200
    for bad in ("", "first-key-of-on", "x" * 600, "ä"):
        answer = web.http.get("/predict", headers=[(b"x-api-key", bad.encode())])
        assert answer.status_code == 401
    two = [("x-api-key", "first-key-of-one"), ("x-api-key", "the-key-of-two")]
    assert web.http.get("/predict", headers=two).status_code == 401


@pytest.mark.docker
def test_a_key_in_a_trailer_is_no_key(web: Process) -> None:
    host, _, port = web.url.removeprefix("http://").partition(":")
    request = (
        b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        b'10\r\n{"text": "good"}\r\n0\r\nx-api-key: first-key-of-one\r\n\r\n'
    )
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.docker
def test_a_refused_request_is_counted_under_its_template(web: Process) -> None:
    series = 'app_requests_total{endpoint="/model/info",http_status="401",method="GET"}'
    before = sample(web, series)
    web.http.get("/model/info")
    assert sample(web, series) == before + 1


@pytest.mark.docker
def test_clients_do_not_see_each_other(shared: Site, web: Process) -> None:
    one, again, two = (key(value) for value in KEYS)
    job = shared.trigger(web, **one)
    assert web.http.get(f"/api/v1/jobs/status/{job}", headers=again).status_code == 200
    for kind in ("status", "result"):
        assert web.http.get(f"/api/v1/jobs/{kind}/{job}", headers=two).status_code == 404
    item = web.http.post("/items", json={"name": "mine"}, headers=one).json()
    assert item in web.http.get("/items", headers=again).json()
    assert item not in web.http.get("/items", headers=two).json()
    same = {"idempotency-key": "a-key-that-both-use"}
    assert shared.trigger(web, **one, **same) != shared.trigger(web, **two, **same)


@pytest.mark.docker
def test_no_key_in_any_log(web: Process) -> None:
    web.http.get("/predict", headers=key("first-key-of-one"))
    lines = web.lines()
    text = json.dumps(lines)
    assert not any(value in text for value in KEYS)
    assert any(line.get("client") == "one" for line in lines)


@pytest.mark.docker
def test_keys_are_revoked_and_come_back(shared: Site, web: Process) -> None:
    path = shared.folder / "keys.json"
    rest = {name: client for name, client in KEYS.items() if name != "second-key-of-one"}
    assert web.http.get("/predict", headers=key("second-key-of-one")).status_code == 200
    (line,) = shared.command("keys", "sync", write_keys(path, rest))
    assert (line["changed"], line["added"], line["revoked"]) == (True, 0, 1)
    eventually(
        lambda: web.http.get("/predict", headers=key("second-key-of-one")).status_code == 401
    )
    assert web.http.get("/predict", headers=key("first-key-of-one")).status_code == 200
    (line,) = shared.command("keys", "sync", write_keys(path, rest))
    assert line["changed"] is False
    (line,) = shared.command("keys", "sync", write_keys(path, KEYS))
    assert (line["added"], line["revoked"]) == (1, 0)
    eventually(
        lambda: web.http.get("/predict", headers=key("second-key-of-one")).status_code == 200
    )


@pytest.mark.docker
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Invalid JSON"),
        ('[{"client": "a"}]', "0.key_sha256: Field required"),
        ('[{"client": "a b", "key_sha256": "%s"}]' % ("0" * 64), "0.client"),
        ('[{"client": "a", "key_sha256": "XYZ"}]', "0.key_sha256"),
        (json.dumps([{"client": "a", "key_sha256": "0" * 64}] * 2), "listed twice"),
    ],
)
def test_a_wrong_key_file_changes_nothing(shared: Site, content: str, said: str) -> None:
    path = shared.folder / "wrong.json"
    path.write_text(content)
    query = "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL"
    before = shared.one(query)
    lines = shared.command("keys", "sync", str(path), fails=1)
    assert said in lines[-1]["reason"]
    assert shared.one(query) == before


@pytest.mark.docker
@pytest.mark.slow
def test_when_keys_cannot_be_checked_nobody_gets_in(site: Site) -> None:
    site.command("keys", "sync", write_keys(site.folder / "keys.json", KEYS))
    web = site.serve(AUTH_ENABLED="true", AUTH_CACHE_SECONDS="0.2")
    good = key("first-key-of-one")
    assert web.http.get("/predict", headers=good).status_code == 200
    site.postgres.down()
    try:
        time_out = eventually(
            lambda: (answer := web.http.get("/predict", headers=good)).status_code == 503 and answer
        )
        assert time_out.headers["retry-after"]
        assert web.http.get("/predict").status_code == 401
        assert web.http.get("/health").status_code == 200
    finally:
        site.postgres.up()
    eventually(lambda: web.http.get("/predict", headers=good).status_code == 200)


@pytest.mark.docker
def test_without_the_table_nobody_gets_in(empty_site: Site) -> None:
    web = empty_site.serve(AUTH_ENABLED="true")
    assert web.http.get("/predict", headers=key("first-key-of-one")).status_code == 503


def test_without_a_database_nobody_gets_in() -> None:
    client = Client(create_app(Settings(auth_enabled=True)))
    assert client.get("/predict", headers=key("any")).status_code == 503
    assert client.get("/predict").status_code == 401
    assert client.get("/health").status_code == 200


def scope(value: str) -> dict[str, Any]:
    """Return a request with this key, as a middleware receives it."""
    return {"type": "http", "headers": [(b"x-api-key", value.encode())]}


class Counted(Database):
    """The real database, which counts its queries."""

    asked = 0

    async def fetch_one(self, query: str, *parameters: Any) -> DictRow | None:
        self.asked += 1
        return await super().fetch_one(query, *parameters)


@pytest.mark.docker
def test_requests_that_wait_for_the_same_key_ask_once(shared: Site) -> None:
    shared.command("keys", "sync", write_keys(shared.folder / "keys.json", KEYS))
    settings = Settings(
        database_url=shared.environment["DATABASE_URL"], database_password=SecretStr(PASSWORD)
    )

    async def run() -> tuple[list[Any], int]:
        database = Counted(settings, application="test")
        await database.open()
        try:
            keys = KeyStore(database, cache_seconds=0)
            wanted = ["first-key-of-one"] * 30 + ["the-key-of-two"] * 30 + ["unknown"] * 30
            tasks = [asyncio.create_task(keys.authenticate(scope(value))) for value in wanted]
            await asyncio.sleep(0)
            # A cancelled request must not affect the others.
            tasks[0].cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            asked = database.asked
            await keys.authenticate(scope("the-key-of-two"))
            assert database.asked == asked + 1
            return found, asked
        finally:
            await database.close()

    found, asked = asyncio.run(run())
    assert asked == 3
    assert isinstance(found[0], asyncio.CancelledError)
    assert {one.client for one in found[1:30]} == {"one"}
    assert {one.client for one in found[30:60]} == {"two"}
    assert {one.status for one in found[60:]} == {401}


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.docker
def test_guessed_keys_are_limited_before_postgres_is_asked(shared: Site) -> None:
    """Send 400 keys from one address with a limit of 20; a known client must not be delayed."""
    shared.command("keys", "sync", write_keys(shared.folder / "keys.json", KEYS))
    settings = Settings(
        database_url=shared.environment["DATABASE_URL"],
        database_password=SecretStr(PASSWORD),
        redis_url=f"redis://127.0.0.1:{shared.redis.port}/14",
        redis_password=SecretStr(PASSWORD),
        rate_limit_per_min=20,
        # A busy machine is slow, and a limiter that times out lets requests pass.
        redis_timeout_seconds=10,
    )

    async def run() -> None:
        database = Counted(settings, application="test")
        await database.open()
        limiter = RateLimiter(settings)
        assert limiter._client is not None
        await limiter._client.flushdb()
        gate = GateMiddleware(
            _nothing, keys=KeyStore(database, cache_seconds=0.05), limiter=limiter, needed={}
        )
        transport = httpx.ASGITransport(app=gate, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def ask(value: str) -> int:
                return (await client.get("/predict", headers=key(value))).status_code

            try:
                assert await ask("first-key-of-one") == 200
                assert database.asked == 1
                for together in (40, 360):
                    keys = [f"guess-{together}-{number}" for number in range(together)]
                    answers = await asyncio.gather(*(ask(value) for value in keys))
                    assert set(answers) <= {401, 429}
                # A slot can be freed and taken again while the first 20 keys are looked up.
                assert 20 <= database.asked <= 45
                # A key that was valid before is looked up again, whoever shares its address.
                await asyncio.sleep(0.1)
                asked = database.asked
                assert await ask("first-key-of-one") == 200
                assert database.asked == asked + 1
                # A key that was not seen before must wait.
                answer = await client.get("/predict", headers=key("the-key-of-two"))
                assert answer.status_code == 429
                assert answer.headers["ratelimit-limit"] == "20"
                assert answer.headers["retry-after"] == answer.headers["ratelimit-reset"]
            finally:
                await limiter.close()
                await database.close()

    asyncio.run(run())


@pytest.mark.docker
def test_guesses_push_no_good_key_out(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # Send more guesses than either cache can hold, with smaller caches.
    monkeypatch.setattr(auth, "_CACHED_KEYS", 200)
    monkeypatch.setattr(auth, "_CACHED_MISSES", 100)
    shared.command("keys", "sync", write_keys(shared.folder / "keys.json", KEYS))
    settings = Settings(
        database_url=shared.environment["DATABASE_URL"], database_password=SecretStr(PASSWORD)
    )

    async def run() -> None:
        database = Counted(settings, application="test")
        await database.open()
        keys = KeyStore(database, cache_seconds=60)
        try:
            await keys.authenticate(scope("first-key-of-one"))
            for number in range(250):
                with pytest.raises(Problem):
                    await keys.authenticate(scope(f"guess-{number}"))
            asked = database.asked
            await keys.authenticate(scope("first-key-of-one"))
            assert database.asked == asked
            # A recent miss is cached, too.
            with pytest.raises(Problem):
                await keys.authenticate(scope("guess-249"))
            assert database.asked == asked
        finally:
            await database.close()

    asyncio.run(run())
