"""The watch on real files, with real replicas over HTTP and a fake Nginx."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from swap_agent import probe, replicas, swap, watch
from swap_agent.nginx import Edge
from swap_agent.refusal import Refusal
from swap_agent.state import SwapError, exclusive
from swap_agent.watch import Watch

from tests.unit.site.swapkit import World

UNREADY = {"status": "unready", "checks": {"postgres": "not available (refused)", "redis": "ok"}}


class Service(http.server.ThreadingHTTPServer):
    """A replica: ready, unready, slow, or silent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.wait = 0.0
        self.asked = 0
        self.address = f"127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.asked += 1
        assert self.path == "/health/ready"
        threading.Event().wait(self.server.wait)
        body = json.dumps({"status": "ready"} if self.server.status == 200 else UNREADY).encode()
        with contextlib.suppress(OSError):
            self.send_response(self.server.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Discard the message."""


@pytest.fixture
def services() -> Iterator[list[Service]]:
    made = [Service(), Service()]
    yield made
    for one in made:
        one.shutdown()
        one.server_close()


class Paper(Refusal):
    """A stand-in that records which addresses would be refused."""

    def __init__(self) -> None:
        super().__init__()
        self.now: set[str] = set()

    def keep(self, out: Any, clock: float) -> str:
        self.now = set(out)
        return ""


@pytest.fixture
def site(serving: World, services: list[Service], monkeypatch: pytest.MonkeyPatch) -> World:
    """Provide a site whose two app hosts are those services, as blue; green is empty."""
    monkeypatch.setattr(probe, "PATIENCE", 0.05)
    monkeypatch.setattr(probe, "LIFETIME", 2.0)
    monkeypatch.setattr(watch, "INTERVAL", 0.02)
    monkeypatch.setattr(replicas, "APART", 0.01)
    lines = [f"    server {one.address}; # app-{n}\n" for n, one in enumerate(services, 1)]
    others = [line.replace("127.0.0.1", "127.0.0.9") for line in lines]
    backups = [line.replace(";", " backup;", 1) for line in others]
    for name, body in {
        "blue": lines,
        "green": others,
        "blue-green": lines + backups,
        "green-blue": [*others, *(line.replace(";", " backup;", 1) for line in lines)],
    }.items():
        text = f"upstream app {{\n{''.join(body)}}}\n"
        (serving.edge.desired / f"upstreams/{name}.conf").write_text(text)
    serving.apply()
    serving.calls.clear()
    return serving


def watching(site: World) -> Watch:
    made = Watch(site.edge)
    made.refusal = Paper()
    return made


def until(site: World, made: Watch, reached: Callable[[], bool]) -> None:
    """Run the daemon's two parts until a condition is true."""

    async def go() -> None:
        made.news = asyncio.Event()
        tasks = [asyncio.ensure_future(part) for part in (made.seeing(), made.acting())]
        deadline = time.monotonic() + 20
        while not reached():
            assert time.monotonic() < deadline, made._seen()
            for task in tasks:
                assert not task.done(), task
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()

    asyncio.run(go())


def hups(site: World) -> int:
    return site.calls.count("hup")


def shown(site: World, name: str = "app-2") -> dict[str, Any]:
    found: dict[str, Any] = swap.show(site.edge)["replicas"].get(name, {"state": "?"})
    return found


def refuse(one: Service) -> None:
    one.shutdown()
    one.server_close()


def unready(one: Service) -> None:
    one.status = 503


def hang(one: Service) -> None:
    one.wait = 60


@pytest.mark.parametrize(
    ("sicken", "why"),
    [
        (refuse, "connection refused"),
        (unready, "HTTP 503, postgres: not available (refused)"),
        (hang, "no answer"),
    ],
)
def test_a_sick_replica_gets_the_mark_and_show_says_why(
    site: World, services: list[Service], sicken: Callable[[Service], None], why: str
) -> None:
    made = watching(site)
    generation = site.edge.live_generation()
    until(site, made, lambda: shown(site)["last"] is not None if "last" in shown(site) else False)
    assert shown(site)["state"] == "in"
    assert hups(site) == 0, "healthy replicas cause no reload"
    sicken(services[1])
    until(site, made, lambda: hups(site) == 1 and shown(site)["state"] == "out")
    assert site.edge.out() == {services[1].address}
    assert made.refusal.now == {services[1].address}  # type: ignore[attr-defined]
    found = shown(site)
    assert found["why"] == why
    assert found["colour"] == "blue"
    assert shown(site, "app-1")["state"] == "in"
    assert swap.show(site.edge)["watcher"]["alive"]
    metrics = (site.settings.watch_dir / "replicas.prom").read_text().splitlines()
    assert 'airlift_replica_in_service{replica="app-2",colour="blue"} 0' in metrics
    assert 'airlift_replica_in_service{replica="app-1",colour="blue"} 1' in metrics
    assert 'airlift_replica_taken_out_total{replica="app-2",colour="blue"} 1' in metrics
    # This creates no generation and changes nothing for the next run of a playbook.
    assert site.edge.live_generation() == site.state()["generation"] == generation
    assert not site.apply()["changed"]
    assert site.events() == []


def test_it_comes_back_by_itself_and_nginx_is_told_at_most_every_ten_seconds(
    site: World, services: list[Service]
) -> None:
    made = watching(site)
    offset = 0.0
    made.clock = lambda: time.monotonic() + offset
    services[1].status = 503
    until(site, made, lambda: hups(site) == 1)
    services[1].status = 200
    until(site, made, lambda: made.board[services[1].address].out is False)
    asked = services[1].asked
    until(site, made, lambda: services[1].asked > asked + 20)
    assert hups(site) == 1, "the last reload is too recent"
    assert site.edge.out() == {services[1].address}
    offset = watch.RELOADS
    until(site, made, lambda: hups(site) == 2)
    assert site.edge.out() == set()
    assert made.refusal.now == set()  # type: ignore[attr-defined]
    assert (site.edge.live / "upstream.conf").read_text() == (
        site.edge.desired / "upstreams/blue.conf"
    ).read_text()


def test_the_only_one_that_is_well_does_not_wait_for_the_next_reload(
    site: World, services: list[Service]
) -> None:
    made = watching(site)
    services[1].status = 503
    until(site, made, lambda: hups(site) == 1)
    # Hosts restart one after the other: one is back, and the other one fails.
    services[1].status = 200
    services[0].status = 503
    until(site, made, lambda: hups(site) > 1 and site.edge.out() != {services[1].address})
    until(site, made, lambda: made.refusal.now <= {services[0].address})  # type: ignore[attr-defined]


def test_a_slow_200_is_a_success(
    site: World, services: list[Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PATIENCE", 0.3)
    monkeypatch.setattr(watch, "INTERVAL", 0.3)
    made = watching(site)
    # Wait twice the timeout: the first answer comes after one or two failures, then all are late.
    services[1].wait = 0.6
    until(site, made, lambda: services[1].asked > 12)
    assert hups(site) == 0
    assert shown(site)["state"] == "in"


def test_the_last_one_stays_and_if_all_are_unready_all_stay(
    site: World, services: list[Service]
) -> None:
    made = watching(site)
    until(site, made, lambda: bool(made.board) and all(one.well for one in made.board.values()))
    for one in services:
        one.status = 503
    until(site, made, lambda: services[0].asked > 20 and services[1].asked > 20)
    assert all(one.failures > 3 for one in made.board.values())
    assert hups(site) == 0
    assert site.edge.out() == set()


def test_a_new_watch_brings_back_what_it_finds_marked(site: World, services: list[Service]) -> None:
    site.edge.mark({services[1].address})
    made = watching(site)
    until(site, made, lambda: hups(site) == 1)
    assert site.edge.out() == set()


def test_what_a_dead_watch_did_not_tell_nginx_is_told(site: World, services: list[Service]) -> None:
    made = watching(site)
    services[1].status = 503
    until(site, made, lambda: hups(site) == 1)
    until(site, made, lambda: json.loads(state(site))["served"] == [services[1].address])
    # It stops between the mark and the signal.
    site.edge.mark(())
    services[1].status = 200
    again = watching(site)
    assert again.reloaded == made.reloaded
    again.clock = lambda: time.monotonic() + watch.RELOADS
    until(site, again, lambda: hups(site) == 2)
    assert again.served == set()


def state(site: World) -> str:
    return (site.settings.watch_dir / watch.STATE).read_text()


def test_a_switch_in_progress_is_not_disturbed(site: World, services: list[Service]) -> None:
    made = watching(site)
    services[1].status = 503
    with exclusive(site.settings):
        until(site, made, lambda: shown(site)["state"] == "out" and services[1].asked > 10)
        assert hups(site) == 0
        assert site.edge.out() == set()
        # Connections are refused meanwhile, for which no lock is needed.
        assert made.refusal.now == {services[1].address}  # type: ignore[attr-defined]
    until(site, made, lambda: hups(site) == 1)


def test_without_a_running_nginx_nothing_is_changed(site: World, services: list[Service]) -> None:
    made = watching(site)
    site.running = False
    services[1].status = 503
    until(site, made, lambda: shown(site)["state"] == "out" and services[1].asked > 10)
    assert hups(site) == 0
    assert site.edge.out() == set()
    site.running = True
    until(site, made, lambda: hups(site) == 1)


def test_a_signal_that_fails_is_sent_again(
    site: World, services: list[Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watching(site)
    services[1].status = 503

    def broken(_: Edge) -> None:
        raise SwapError("cannot signal")

    with monkeypatch.context() as patch:
        patch.setattr(Edge, "hup", broken)
        until(site, made, lambda: "marks" in made._said)
    assert made.served == set()
    until(site, made, lambda: hups(site) == 1)
    assert made.served == {services[1].address}


# ---------------------------------------------------------------- generations
def test_a_new_generation_keeps_the_mark(site: World, services: list[Service]) -> None:
    site.edge.mark({services[1].address})
    site.want("changed")
    assert site.apply()["generation"] == 3
    assert site.edge.out() == {services[1].address}
    assert not site.apply()["changed"]
    site.switch()
    assert site.edge.out() == {services[1].address}, "the marked replica is a backup now"
    site.calls.clear()
    made = watching(site)
    until(site, made, lambda: hups(site) == 1)
    assert site.edge.out() == set(), "it answers, and the primaries do not exist here"
    assert swap.show(site.edge)["standby_replicas"]["app-2"]["colour"] == "blue"


def test_a_new_generation_needs_no_signal_from_here(site: World, services: list[Service]) -> None:
    made = watching(site)
    services[1].status = 503
    until(site, made, lambda: hups(site) == 1)
    site.want("changed")
    site.apply()
    before, asked = hups(site), services[1].asked
    made.clock = lambda: time.monotonic() + watch.RELOADS
    until(site, made, lambda: services[1].asked > asked + 10)
    assert hups(site) == before
    assert site.edge.out() == {services[1].address}


def test_owner_and_mode_of_the_file_stay(site: World, services: list[Service]) -> None:
    path = site.edge.live / "upstream.conf"
    path.chmod(0o400)
    site.edge.mark({services[1].address})
    assert path.stat().st_mode & 0o777 == 0o400
    assert not (site.settings.root / "upstream.new").exists()


# ---------------------------------------------------------------- what is shown
def test_without_a_watch_show_says_so(site: World) -> None:
    found = swap.show(site.edge)
    assert found["replicas"] == {}
    assert found["watcher"] == {"alive": False, "checked": None}


def test_what_a_dead_watch_saw_is_not_alive(
    site: World, services: list[Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watching(site)
    until(site, made, lambda: swap.show(site.edge)["watcher"]["alive"])
    later = time.monotonic() + watch.STALE
    monkeypatch.setattr(time, "monotonic", lambda: later)
    found = swap.show(site.edge)
    assert not found["watcher"]["alive"]
    assert found["watcher"]["checked"] is not None
    assert set(found["replicas"]) == {"app-1", "app-2"}


def test_it_ends_when_its_own_files_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL", 0.01)
    settings = tmp_path / "swap.json"
    settings.write_text("{}")
    made = Watch.__new__(Watch)

    async def go() -> None:
        waiting = asyncio.ensure_future(made.outdated((tmp_path, settings)))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        (tmp_path / "new.py").write_text("")
        await asyncio.wait_for(waiting, 10)

    asyncio.run(go())


def test_a_port_that_speaks_something_else_is_no_replica(site: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            for words in (b"SSH-2.0-x\r\n", b"", b"HTTP/1.1 204 \r\n\r\n", os.urandom(70_000)):
                connection, _ = server.accept()
                with contextlib.suppress(OSError):
                    connection.recv(4096)
                    connection.sendall(words)
                connection.close()

        threading.Thread(target=talk, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        answers = [asyncio.run(probe.ask(address)) for _ in range(4)]
    assert all(answers), answers
    assert answers[2] == "HTTP 204"
