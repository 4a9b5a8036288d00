"""The load generator starts requests on time, counts correctly, and reports each lost request."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from scripts.load import Load, Options, Result
from scripts.load.__main__ import main
from scripts.load.connection import Client
from scripts.load.relay import Relay
from scripts.load.wire import AnswerError, Parser
from tests.unit.scripts.loadkit import Reply, Request, Site, certificate, running


def loaded(site: Site, seconds: float = 1, **options: Any) -> Result:
    """Return the result of a load on a site, by default without far clients and slow requests."""
    settings = {"far": 0, "slow_every": 0, "slow_seconds": 0, "timeout": 20} | options
    with running(site) as url, Load(Options(url, **settings)) as load:
        time.sleep(seconds)
    return load.result


ITEMS = {"item": 1}


# -------------------------------------------------------------------------------- counting
def test_every_request_arrives_once_and_is_accounted_for() -> None:
    site = Site()
    found = loaded(site, 0.6, rate=150, far=0.5)
    assert found.failed == 0, str(found)
    assert found.sent == len(site.requests) == len(found.records) >= 80
    assert sorted(site.items()) == sorted(found.accepted_items)
    assert found.accepted_items == found.attempted_items
    assert all(name.startswith(f"load-{found.run}-") for name in found.accepted_items)
    assert len(found.accepted_jobs) == found.total.kinds.get("job", 0)
    assert found.total.served == {"blue 1": found.sent}
    assert {record.far for record in found.records} == {True, False}
    assert len({request.headers["x-request-id"] for request in site.requests}) == found.sent


def test_jobs_are_kept_by_their_id() -> None:
    found = loaded(Site(), 0.3, rate=20, weights={"job": 1})
    assert found.failed == 0
    assert len(set(found.accepted_jobs)) == len(found.accepted_jobs) == found.sent


def test_a_wrong_status_is_a_failure_with_its_circumstances() -> None:
    site = Site(lambda r: Reply(500 if r.before % 3 == 1 else 0, "X-Request-Id: edge-1\r\n"))
    found = loaded(site, 0.6, rate=60, clients=1, weights=ITEMS)
    assert 0 < found.failed < found.sent
    assert len(found.attempted_items - found.accepted_items) == found.failed
    failure = found.failures[0]
    assert (failure.kind, failure.status, failure.request_id) == ("item", 500, "edge-1")
    assert failure.served_before % 3 == 1
    assert failure.connection_age > 0
    assert all(0 < one.opened <= one.due + one.latency for one in found.records)
    assert "HTTP 500, not 201" in failure.error
    assert failure.error in str(found)
    assert len(found.failures) <= 20


def test_an_answer_for_another_item_is_a_failure() -> None:
    def mixed_up(request: Request) -> Reply:
        request.body["name"] = "another"
        return Reply()

    found = loaded(Site(mixed_up), 0.2, rate=20, weights=ITEMS)
    assert found.failed == found.sent > 0


def test_phases_and_the_longest_gap() -> None:
    site = Site()
    with running(site) as url:
        options = Options(url, rate=50, far=0, slow_every=0, weights=ITEMS)
        with Load(options) as load:
            load.phase("steady")
            time.sleep(0.3)
            site.behave = lambda _request: Reply(503)
            load.phase("outage")
            time.sleep(0.5)
            site.behave = lambda _request: Reply()
            load.phase("steady")
            time.sleep(0.3)
    found = load.result
    assert [name for name in found.phases if name != "start"] == ["steady", "outage"]
    assert sum(phase.sent for phase in found.phases.values()) == found.sent
    assert found.phases["outage"].failed > 15
    assert found.phases["outage"].seconds >= 0.5
    assert found.failures[-1].phase == "outage"
    assert 0.4 < found.longest_gap == found.phases["outage"].longest_gap
    table = str(found)
    assert "steady" in table
    assert "outage" in table


# ---------------------------------------------------- negative control: races on reused connections
def assert_lost_on_reuse(found: Result) -> None:
    assert found.failed > 0
    for failure in found.failures:
        assert "before an answer" in failure.error
        assert failure.status is None
        assert failure.served_before > 0


def test_hanging_up_on_a_reused_connection_is_seen() -> None:
    hang_up = Site(lambda request: None if request.before else Reply())
    found = loaded(hang_up, 0.5, rate=50, clients=1, weights=ITEMS)
    assert_lost_on_reuse(found)
    assert len(hang_up.items()) == found.sent, "a request was sent twice"
    assert len(set(hang_up.items())) == found.sent


def test_closing_idle_connections_unannounced_meets_requests_on_their_way() -> None:
    # The request and the close both take 10 ms. A request sent 40 to 60 ms after the last one is
    # lost, although its connection still looks open. Requests are 50 ms apart.
    found = loaded(Site(idle=0.040), 1.2, rate=20, far=1, clients=1, weights=ITEMS)
    assert_lost_on_reuse(found)


def test_announced_closing_loses_nothing() -> None:
    # The same site under the same load, but it announces the close.
    site = Site(lambda _request: Reply(headers="Connection: close\r\n"), idle=0.040)
    found = loaded(site, 0.8, rate=20, far=1, clients=1, weights=ITEMS)
    assert found.failed == 0, str(found)
    assert {request.before for request in site.requests} == {0}


def test_no_connection_is_reused_after_the_time_that_the_server_named() -> None:
    brief = Site(lambda _request: Reply(headers="Keep-Alive: timeout=0\r\n"))
    assert loaded(brief, 0.2, rate=50, clients=1).failed == 0
    assert {request.before for request in brief.requests} == {0}
    long = Site(lambda _request: Reply(headers="Keep-Alive: timeout=60\r\n"))
    assert loaded(long, 0.2, rate=50, clients=1).failed == 0
    assert max(request.before for request in long.requests) > 0


def test_a_connection_whose_end_has_arrived_is_not_reused() -> None:
    site = Site(idle=0.05)

    async def scenario() -> None:
        client = Client(site.address, context=None, name="site", far=False)
        connection = await client.connection()
        await connection.exchange(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n")
        client.give_back(connection)
        assert connection.reusable()
        time.sleep(0.3)  # noqa: ASYNC251 - the event loop must not see the end before the client
        assert not connection.lost.done()
        assert not connection.reusable()
        assert await client.connection() is not connection
        await client.close()

    with running(site):
        asyncio.run(scenario())


def test_an_answer_without_a_length_ends_with_the_connection_and_half_an_answer_is_none() -> None:
    async def ask(raw: bytes) -> bytes:
        async def site(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(raw)
            writer.close()

        async with await asyncio.start_server(site, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            client = Client(address, context=None, name="site", far=False)
            connection = await client.connection()
            return (await connection.exchange(b"")).body

    assert asyncio.run(ask(b"HTTP/1.1 200 OK\r\n\r\nall")) == b"all"
    with pytest.raises(AnswerError, match="closed after 42 bytes of an answer"):
        asyncio.run(ask(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"))


# ------------------------------------------------------------------------------------ the open loop
def test_a_stall_stops_no_arrivals_and_shows_in_every_latency() -> None:
    begin = time.monotonic() + 0.3

    def stalled(_request: Request) -> Reply:
        now = time.monotonic()
        return Reply(wait=begin + 1 - now if begin <= now < begin + 1 else 0)

    found = loaded(Site(stalled), 1.5, rate=50)
    assert found.failed == 0
    assert found.sent == pytest.approx(50 * found.total.seconds, abs=2)
    # At least half of the 50 arrivals in that second wait half a second or longer.
    assert sum(record.latency > 0.4 for record in found.records) >= 20
    assert found.total.latency.max > 0.8
    assert found.longest_gap > 0.5


def test_a_stall_of_the_generator_costs_no_request_and_is_reported() -> None:
    with running(Site()) as url, Load(Options(url, rate=50, slow_every=0)) as load:
        time.sleep(0.11)  # between two arrivals: the next one is not yet due when the loop blocks
        load._loop.call_soon_threadsafe(time.sleep, 0.5)
        time.sleep(0.3)
    found = load.result
    assert found.failed == 0
    assert found.sent == pytest.approx(50 * found.total.seconds, abs=2)
    assert found.late > 0.25
    assert all(record.latency > record.late for record in found.records)


def test_slow_requests_take_their_time_and_are_kept_apart() -> None:
    site = Site()
    found = loaded(site, 0.7, rate=20, slow_every=0.3, slow_seconds=0.5, weights={"root": 1})
    assert found.failed == 0
    assert found.total.kinds["slow"] >= 2
    assert len(found.accepted_items) == found.total.kinds["slow"] == len(site.items())
    assert found.total.slow.p50 >= 0.45
    slow = [request for request in site.requests if request.body]
    assert all(request.body_seconds > 0.3 for request in slow)
    quick = [record for record in found.records if record.kind == "root"]
    assert found.total.latency.max == max(record.latency for record in quick)


def test_what_is_under_way_at_the_end_is_awaited() -> None:
    found = loaded(Site(lambda _request: Reply(wait=0.6)), 0.3, rate=40)
    assert found.failed == 0
    assert found.sent >= 10
    assert found.total.latency.p50 >= 0.6


def test_a_request_without_an_answer_fails_in_time() -> None:
    found = loaded(Site(lambda _request: Reply(wait=30)), 0.2, rate=20, timeout=0.5)
    assert found.failed == found.sent > 0
    assert found.failures[0].error == "no answer in 0.5 s"
    assert found.longest_gap > 0


def test_a_site_that_is_not_there_is_all_failures() -> None:
    with running(Site()) as url:
        pass
    with Load(Options(url, rate=20, far=0.5)) as load:
        time.sleep(0.3)
    assert load.result.failed == load.result.sent > 0


# ---------------------------------------------------------------------------------------- the relay
def test_the_relay_delays_bytes_and_the_end_both_ways_in_order() -> None:
    delay = 0.1
    seen: list[tuple[bytes, float]] = []

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            seen.append((data, time.monotonic()))
            writer.write(data)
        seen.append((b"", time.monotonic()))
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(target, "127.0.0.1", 0)
        async with server, Relay(server.sockets[0].getsockname(), delay=delay) as relay:
            reader, writer = await asyncio.open_connection(*relay.address)
            sent = b"".join(b"%06d " % number for number in range(5000))
            began = time.monotonic()
            for at in range(0, len(sent), 700):
                writer.write(sent[at : at + 700])
                await asyncio.sleep(0)
            assert await reader.readexactly(len(sent)) == sent
            assert b"".join(data for data, _ in seen) == sent
            assert seen[0][1] - began >= 0.9 * delay
            assert time.monotonic() - began >= 1.9 * delay
            ended = time.monotonic()
            writer.write_eof()
            assert await reader.read() == b""
            assert time.monotonic() - ended >= 1.9 * delay
            assert seen[-1][0] == b""
            assert seen[-1][1] - ended >= 0.9 * delay
            writer.close()

    asyncio.run(scenario())


def test_far_requests_take_a_round_trip_longer() -> None:
    found = loaded(Site(), 0.5, rate=40, far=1, delay=0.010, weights={"root": 1})
    assert found.failed == 0
    assert min(record.latency for record in found.records) >= 0.018


# -------------------------------------------------------------------------------------- HTTP parser
@pytest.mark.parametrize(
    ("raw", "body", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", True),
        (b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 204 No\r\n\r\n", b"", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", b"a", False),
        (b"HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 0\r\n\r\n", b"", False),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            b"abc",
            True,
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end", False),
    ],
)
def test_answers_come_in_any_pieces(raw: bytes, body: bytes, keep: bool) -> None:
    for size in (1, 7, len(raw)):
        parser = Parser()
        fed = [parser.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
        assert fed[:-1] == [None] * (len(fed) - 1)
        answer = fed[-1] or parser.end()
        assert answer is not None
        assert (answer.body, answer.keep) == (body, keep)


@pytest.mark.parametrize("raw", [b"SSH-2.0\r\n\r\n", b"x" * 70000])
def test_what_is_no_answer_is_refused(raw: bytes) -> None:
    with pytest.raises(AnswerError):
        Parser().feed(raw)


# ------------------------------------------------------------------------------- TLS, command line
@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


def test_the_command_line_over_tls_shows_no_key(
    tls: tuple[ssl.SSLContext, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, key = Site(), tmp_path / "key"
    key.write_text("hush-hush\n")
    with running(site, tls[0]) as url:
        argv = ["--url", url, "--ca", str(tls[1]), "--key-file", str(key), "--rate", "60"]
        assert main([*argv, "--seconds", "0.7", "--far", "0.5", "--slow-every", "0", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["total"]["sent"] == len(site.requests) >= 40
        assert max(request.before for request in site.requests) > 0
        assert {request.headers["x-api-key"] for request in site.requests} == {"hush-hush"}
        site.behave = lambda _request: Reply(401)
        assert main([*argv, "--seconds", "0.2", "--slow-every", "0", "--mix", "item=1"]) == 1
        shown = capsys.readouterr().out
    assert "HTTP 401, not 201" in shown
    assert "hush" not in shown + json.dumps(found)


def test_an_unknown_authority_is_a_failure(tls: tuple[ssl.SSLContext, Path]) -> None:
    with running(Site(), tls[0]) as url, Load(Options(url, rate=20)) as load:
        time.sleep(0.3)
    assert load.result.failed == load.result.sent > 0
    assert "SSLCertVerificationError" in load.result.failures[0].error


@pytest.mark.parametrize(
    "words",
    [
        ["--url", "ftp://site"],
        ["--url", "https://site/path"],
        ["--url", "http://site", "--rate", "0"],
        ["--url", "http://site", "--seconds", "-1"],
        ["--url", "http://site", "--mix", "items=1"],
        ["--url", "http://site", "--key-file", "/no/such/file"],
        ["--url", "https://site", "--ca", "/no/such/file"],
    ],
)
def test_wrong_usage_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2


def test_a_load_that_cannot_start_says_so() -> None:
    options = Options("https://site", ca=Path("/no/such/file"), key="hush-hush")
    assert "hush" not in repr(options)
    with pytest.raises(OSError, match="No such file"), Load(options):
        pytest.fail("it started")
