"""Limits of the HTTP edge: requests per minute, time, concurrency, depth of a body."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.http.limits import too_deep
from app.http.ratelimit import RateLimiter, address_name
from app.main import create_app
from app.settings import Settings
from tests.unit.app.appkit import JSON, PASSWORD, Client, Process, Redis, Site, eventually, sample
from tests.unit.app.test_app_keys import add

_DATABASES = itertools.count(1)
#: Share one client: each new one reads the certificates of all authorities.
CLIENT = httpx.Client()


def of_its_own(site: Site) -> dict[str, str]:
    """Return a Redis database of the test's own, with a long timeout for a busy machine."""
    return {"REDIS_URL": _url(site.redis), "REDIS_TIMEOUT_SECONDS": "5"}


def limited_by(redis: Redis) -> Settings:
    """Return the settings of a limiter in this process, with a database of its own."""
    return Settings(redis_url=_url(redis), redis_password=SecretStr(PASSWORD))


def _url(redis: Redis) -> str:
    return f"redis://127.0.0.1:{redis.port}/{next(_DATABASES)}"


def statuses(process: Process, count: int, **headers: str) -> list[int]:
    return [process.http.get("/predict", headers=headers).status_code for _ in range(count)]


# ---------------------------------------------------------------- requests a minute


@pytest.mark.docker
@pytest.mark.slow
def test_b1_a_key_is_limited_over_processes_and_hosts_and_has_an_override(shared: Site) -> None:
    env = {**of_its_own(shared), "AUTH_ENABLED": "true", "RATE_LIMIT_PER_MIN": "10"}
    hosts = [shared.serve(**env), shared.serve(**env)]
    _, plain = add(shared, "plain")
    _, more = add(shared, "more", "--rate-limit", "25")
    for key, limit in ((plain, 10), (more, 25)):
        answers = []
        with ThreadPoolExecutor(8) as pool:
            urls = [hosts[number % 2].url for number in range(3 * limit)]
            got = pool.map(lambda url, key=key: _get(url, key), urls)
            answers = list(got)
        assert sum(answer.status_code == 200 for answer in answers) == limit
        assert {answer.status_code for answer in answers} == {200, 429}
        left = {answer.headers["ratelimit-remaining"] for answer in answers if answer.is_success}
        assert left == {str(number) for number in range(limit)}
        assert {answer.headers["ratelimit-limit"] for answer in answers} == {str(limit)}
    refused = _get(hosts[0].url, plain)
    assert refused.headers["content-type"] == "application/problem+json"
    assert 1 <= int(refused.headers["retry-after"]) <= 65
    assert refused.headers["ratelimit-reset"] == refused.headers["retry-after"]
    assert refused.headers["ratelimit-remaining"] == "0"
    # Without a key the address is limited; public endpoints are never limited.
    assert statuses(hosts[0], 12) == [401] * 10 + [429] * 2
    for path in ("/health", "/health/ready", "/metrics", "/docs", "/openapi.json"):
        answer = hosts[0].http.get(path)
        assert answer.status_code == 200
        assert "ratelimit-limit" not in answer.headers
    assert sample(hosts[0], 'app_rate_limit_total{outcome="limited"}') >= 2


def _get(url: str, key: str) -> httpx.Response:
    return CLIENT.get(f"{url}/predict", headers={"x-api-key": key, "connection": "close"})


@pytest.mark.docker
def test_b1_the_address_is_believed_from_the_proxy_only(shared: Site) -> None:
    env = {**of_its_own(shared), "RATE_LIMIT_PER_MIN": "3"}
    behind = shared.serve(**env, TRUSTED_PROXIES='["127.0.0.0/8"]')
    for address in ("203.0.113.1", "203.0.113.2"):
        assert statuses(behind, 4, **{"x-forwarded-for": address}) == [200, 200, 200, 429]
    # An entry that the client put before the proxy's is ignored.
    forged = {"x-forwarded-for": "198.51.100.7, 203.0.113.1"}
    assert statuses(behind, 1, **forged) == [429]
    alone = shared.serve(**env)
    seen = [
        statuses(alone, 1, **{"x-forwarded-for": f"203.0.113.{n}", "x-real-ip": f"203.0.113.{n}"})
        for n in range(10, 14)
    ]
    assert seen == [[200], [200], [200], [429]]


@pytest.mark.docker
def test_b1_the_minute_slides_by_redis_own_clock(redis: Redis) -> None:
    """Write counts of earlier slots instead of waiting for a minute."""
    settings = limited_by(redis)

    async def run() -> None:
        limiter = RateLimiter(settings)
        client = limiter._client
        assert client is not None
        try:
            now, _ = await client.time()
            slot = now // 5
            # Two requests of 40 s ago count, three of 70 s ago no longer count.
            await client.hset("who", mapping={str(slot - 8): 2, str(slot - 14): 3})
            first = await limiter.take("who", 4)
            assert first is not None
            assert (first.allowed, first.remaining) == (True, 1)
            assert 15 <= first.reset <= 25
            second = await limiter.take("who", 4)
            third = await limiter.take("who", 4)
            assert second is not None
            assert third is not None
            assert (second.allowed, third.allowed) == (True, False)
            assert str(slot - 14) not in await client.hgetall("who")
            assert 60 < await client.ttl("who") <= 65
        finally:
            await limiter.close()

    asyncio.run(run())


@pytest.mark.docker
def test_b1_many_at_once_share_round_trips(redis: Redis) -> None:
    settings = limited_by(redis)

    async def run() -> None:
        limiter = RateLimiter(settings)
        client = limiter._client
        assert client is not None
        try:
            await limiter.take("before", 5)
            scripts = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
            verdicts = await asyncio.gather(*(limiter.take(f"{n % 2}", 60) for n in range(150)))
            assert sum(bool(verdict and verdict.allowed) for verdict in verdicts) == 120
            used = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] - scripts
            assert used == 2
        finally:
            await limiter.close()

    asyncio.run(run())


@pytest.mark.docker
def test_b1_without_redis_requests_pass_and_cost_nothing(site: Site) -> None:
    web = site.serve(RATE_LIMIT_PER_MIN="2", WEB_CONCURRENCY="1", REDIS_TIMEOUT_SECONDS="0.3")
    # Another test may have sent requests from this address a moment ago.
    assert site.redis.command("FLUSHALL")
    assert statuses(web, 3) == [200, 200, 429]
    site.redis.down()
    try:
        assert statuses(web, 50) == [200] * 50
        assert sample(web, 'app_rate_limit_total{outcome="unchecked"}') == 50
        assert len(web.logged("rate limits are off")) == 1
    finally:
        site.redis.up()
    # A restarted Redis has neither the script nor the counts.
    eventually(lambda: 429 in statuses(web, 5), what="limited again")
    assert web.logged("rate limits are on again")


@pytest.fixture
def mute() -> Iterator[int]:
    """Return a port that accepts connections and never answers, like a hung Redis."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    kept.append(listener.accept()[0])
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        for connection in kept:
            connection.close()


def test_b1_a_redis_that_hangs_delays_one_batch_at_a_time(mute: int) -> None:
    settings = Settings(redis_url=f"redis://127.0.0.1:{mute}/0", redis_timeout_seconds=0.3)

    async def run() -> None:
        limiter = RateLimiter(settings)
        try:
            assert await limiter.take("a", 1) is None
            limiter._resting_until = 0
            probe = asyncio.create_task(limiter.take("a", 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            # During this query others do not even yield to the loop: the coroutine returns at once.
            with pytest.raises(StopIteration) as ended:
                limiter.take("b", 1).send(None)
            assert ended.value.value is None
            assert not probe.done()
            assert await probe is None
        finally:
            await limiter.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "a name\r\n", True),
    ],
)
def test_b1_addresses_of_one_customer_are_one(one: str, other: str, same: bool) -> None:
    assert (address_name(one) == address_name(other)) is same


# ---------------------------------------------------------------- time and places


def slow(settings: Settings, **update: Any) -> tuple[FastAPI, asyncio.Event]:
    """Return an application with one endpoint that answers when the event is set."""
    app = create_app(settings.model_copy(update=update))
    gate = asyncio.Event()

    async def held() -> dict[str, bool]:
        await gate.wait()
        return {"ok": True}

    app.router.add_api_route("/held", held)
    return app, gate


def test_b3_what_takes_too_long_is_a_504(settings: Settings) -> None:
    app, _ = slow(settings, request_timeout_seconds=0.05)
    answer = Client(app).get("/held")
    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_b3_a_request_above_the_limit_waits_a_moment_and_gets_503(settings: Settings) -> None:
    app, gate = slow(settings, max_concurrent_requests=2, concurrency_wait_seconds=0.05)

    async def run() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            running = [asyncio.create_task(client.get("/held")) for _ in range(2)]
            await asyncio.sleep(0.01)
            refused = await client.get("/predict")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["type"].endswith(":busy")
            for path in ("/health", "/metrics"):
                assert (await client.get(path)).status_code == 200
            # Two requests may wait, as many as may run; the third is refused at once.
            waiting = [asyncio.create_task(client.get("/predict")) for _ in range(3)]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result().status_code for task in done] == [503]
            gate.set()
            assert [(await task).status_code for task in running] == [200, 200]
            assert sorted([(await task).status_code for task in waiting]) == [200, 200, 503]
            assert (await client.get("/predict")).status_code == 200

    asyncio.run(run())


def test_b3_a_place_is_given_back_by_those_who_fail(settings: Settings) -> None:
    update = {"max_concurrent_requests": 1, "request_timeout_seconds": 0.05}
    app = create_app(settings.model_copy(update=update))
    client = Client(app)

    async def broken() -> None:
        raise RuntimeError

    async def asleep() -> None:
        await asyncio.sleep(60)

    app.router.add_api_route("/broken", broken)
    app.router.add_api_route("/asleep", asleep)
    for _ in range(3):
        assert client.get("/broken").status_code == 500
        assert client.get("/asleep").status_code == 504
        assert client.post("/predict", content=b"{", headers=JSON).status_code == 422
    assert client.get("/predict").status_code == 200


@pytest.mark.docker
@pytest.mark.slow
def test_b3_a_slow_upload_is_cut_off_and_counts_as_a_running_request(shared: Site) -> None:
    web = shared.serve(
        WEB_CONCURRENCY="1",
        REQUEST_TIMEOUT_SECONDS="1.5",
        MAX_CONCURRENT_REQUESTS="1",
        CONCURRENCY_WAIT_SECONDS="0.1",
    )
    host, port = web.url.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for framing in (
        b"content-length: 20\r\n\r\n{",
        b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head + framing)
            eventually(lambda: web.http.get("/predict").status_code == 503)
            assert web.http.get("/health/ready").status_code == 200
            answer = b""
            while part := connection.recv(65536):
                answer += part
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"application/problem+json" in answer
        assert web.http.get("/predict").status_code == 200
    # Each upload reached its timeout: the closed connection ended the loop above.
    assert sample(web, 'app_requests_refused_total{limit="upload-timeout"}') == 2


def test_b3_no_more_bodies_are_held_than_requests_may_run(settings: Settings) -> None:
    update = {"max_concurrent_requests": 3, "concurrency_wait_seconds": 0.05}
    app = create_app(settings.model_copy(update=update))

    async def run() -> None:
        end = asyncio.Event()
        begun = 0

        async def slowly() -> AsyncIterator[bytes]:
            nonlocal begun
            begun += 1
            yield b'{"text": '
            await end.wait()
            yield b'"good"}'

        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            sending = [
                asyncio.create_task(client.post("/predict", content=slowly(), headers=JSON))
                for _ in range(20)
            ]
            for refused in itertools.islice(asyncio.as_completed(sending), 17):
                assert (await refused).status_code == 503
            # A refused request did not start to send its body.
            assert begun == 3
            end.set()
            answers = [(await task).status_code for task in sending]
            assert sorted(answers) == [200] * 3 + [503] * 17
            assert (await client.get("/predict")).status_code == 200

    asyncio.run(run())


# ---------------------------------------------------------------- depth


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    value=st.recursive(
        st.text(alphabet='[]{}"\\a', max_size=6) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(alphabet='[]{}"\\a', max_size=4), inner, max_size=3)
        ),
        max_leaves=30,
    ),
    most=st.integers(1, 6),
)
def test_b3_depth_is_counted_as_a_parser_would(value: Any, most: int) -> None:
    assert too_deep(json.dumps(value).encode(), most) is (depth(value) > most)


# Linear code ends in milliseconds; quadratic code would exceed this timeout.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("body", "deep"),
    [
        (b"[" * 1_000_000, True),
        (b"[" * 500_000 + b"]" * 500_000, True),
        (b'{"a":' * 150_000 + b"1" + b"}" * 150_000, True),
        (b"[" * 40 + b'"' + b"\\" * 900_000, True),
        (b"[" + b"{}," * 200_000 + b"1]", False),
        (b'["' + b"[" * 900_000 + b'"]', False),
        (b"][" * 500_000, False),
    ],
)
def test_b3_hostile_depth_costs_no_time(body: bytes, deep: bool) -> None:
    assert too_deep(body, 32) is deep
