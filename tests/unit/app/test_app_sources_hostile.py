"""Hostile HTTP sources: addresses they must not reach, and limits they must not exceed."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from app.sources import addresses
from app.sources.api import ApiSource
from app.sources.base import (
    Access,
    Limits,
    RefusedSourceError,
    SourceError,
    TransientSourceError,
)
from app.sources.schemas import ApiConfig
from tests.unit.app.appkit import Client

LIMITS = Limits(max_bytes=3_000_000, max_records=50_000, timeout_seconds=1)
# The lab allows one service of the client's, in a private network.
ALLOWED = ["172.30.2.254:8088", "data.client.example:8443"]
NETWORKS = [ipaddress.ip_network("172.30.2.0/24")]

BLOCKED_URLS = [
    "http://127.0.0.1/",
    "http://127.0.0.1:5432/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.0.0.1./",
    "http://0.0.0.0/",
    "http://0/",
    "http://[::1]/",
    "http://[::]/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://172.16.0.1/",
    "http://172.30.3.10:5432/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://[fd00:ec2::254]/",
    "http://[fd12:3456::1]/",
    "http://[fe80::1]/",
    "http://[ff02::1]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[::7f00:1]/",
    "file:///etc/passwd",
    "gopher://172.30.2.254:8088/",
    "http://user:password@172.30.2.254:8088/",
    "http://127.0.0.1@172.30.2.254:8088/",
    "http://172.30.2.254:8088@127.0.0.1/",
]


@pytest.fixture(scope="module")
def client() -> Client:
    return Client(create_app(Settings(api_sources_allowed=ALLOWED, api_sources_networks=NETWORKS)))


@pytest.mark.parametrize("url", BLOCKED_URLS)
def test_b8_no_form_of_an_address_that_is_blocked_is_taken(client: Client, url: str) -> None:
    answer = client.post(
        "/api/v1/jobs/trigger", json={"source_type": "api", "config": {"url": url}}
    )
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert (error["field"], error["code"]) == ("config.url", "blocked_address")


@pytest.mark.parametrize(
    "url", ["http://\ufb01le.example/", "http://a b/", "http://[::1/", "x", ""]
)
def test_what_is_no_address_is_named(client: Client, url: str) -> None:
    answer = client.post(
        "/api/v1/jobs/trigger", json={"source_type": "api", "config": {"url": url}}
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "config.url"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "::1"),
        *("fd00:ec2::254", "fe80::1", "::ffff:10.1.2.3", "64:ff9b::a01:203", "2002:a01:203::"),
        *(
            "172.30.3.10",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "2001:0:4136:e378:8000:63bf:80ff:fffe",
        ),
    ],
)
def test_b8_a_name_may_not_lead_to_what_is_blocked(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client controls the name, so each resolved address is checked when it is used."""

    def answer(*_arguments: Any, **_named: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 8443))]

    async def collect() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", answer)
        source = ApiSource(ALLOWED, LIMITS, networks=NETWORKS)
        await source.collect(ApiConfig(url="http://data.client.example:8443/"), "billing")

    with pytest.raises(RefusedSourceError) as caught:
        anyio.run(collect)
    assert caught.value.code == "blocked_address"
    assert address not in str(caught.value)


@pytest.mark.parametrize("address", ["172.30.2.254", "8.8.8.8", "2606:4700::1111"])
def test_b8_a_name_may_lead_to_the_sites_networks_and_to_public_ones(address: str) -> None:
    assert not addresses.blocked(ipaddress.ip_address(address), NETWORKS)


def test_b8_loopback_and_metadata_are_never_a_sites_network() -> None:
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    for one in ("127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "fd00:ec2::254", "fe80::1"):
        assert addresses.blocked(ipaddress.ip_address(one), everything)
    assert not addresses.blocked(ipaddress.ip_address("10.0.0.1"), everything)


def test_b8_an_allowed_host_belongs_to_its_clients() -> None:
    access = Access({f"api:{ALLOWED[0]}": ["billing"]})
    source = ApiSource(ALLOWED, LIMITS, access=access)
    config = ApiConfig(url=f"http://{ALLOWED[0]}/")
    assert source.check(config, "billing") is None
    refusal = source.check(config, "other")
    assert refusal is not None
    assert ALLOWED[0] not in refusal.message


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that answers each connection with arbitrary bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65536)
                        answer(connection)
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def _endless_body(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"\r\n[")
    while True:
        connection.sendall(b'"a",' * 4096)


def _endless_head(connection: socket.socket) -> None:
    connection.sendall(HEAD)
    while True:
        connection.sendall(b"x-more: " + b"a" * 1000 + b"\r\n")


def _endless_chunk(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffff\r\n")
    while True:
        connection.sendall(b" " * 65536)


def _bomb(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"content-encoding: gzip\r\n\r\n" + b"\x1f\x8b" * 100)


def _drip(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"\r\n")
    pause = threading.Event()
    for _ in range(600):
        connection.sendall(b" ")
        pause.wait(0.05)


def _silence(connection: socket.socket) -> None:
    connection.recv(1)


def _cut(connection: socket.socket) -> None:
    connection.sendall(HEAD + b'content-length: 100\r\n\r\n["a"')


def _header_injection(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 302 x\r\nlocation: /a\x00\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (_endless_body, RefusedSourceError, "source-too-large"),
        (_endless_chunk, RefusedSourceError, "source-too-large"),
        (_endless_head, TransientSourceError, "connection-failed"),
        (_bomb, RefusedSourceError, "compressed"),
        (_drip, TransientSourceError, "timeout"),
        (_silence, TransientSourceError, "timeout"),
        (_cut, TransientSourceError, "connection-failed"),
        (_header_injection, SourceError, None),
    ],
)
def test_b8_an_answer_without_end_or_sense_is_given_up(
    answer: Callable[[socket.socket], None], kind: type[SourceError], code: str | None
) -> None:
    with raw_server(answer) as address:
        source = ApiSource([address], LIMITS)
        with pytest.raises(kind) as caught:
            anyio.run(source.collect, ApiConfig(url=f"http://{address}/"), "billing")
    assert code is None or caught.value.code == code


def test_b8_nothing_compressed_is_asked_for() -> None:
    asked: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"content-length: 2\r\n\r\n[]")

    with raw_server(answer) as address:
        original = httpx.AsyncClient.build_request

        def build(self: httpx.AsyncClient, *words: Any, **options: Any) -> httpx.Request:
            request = original(self, *words, **options)
            asked.append(request.headers["accept-encoding"].encode())
            return request

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(httpx.AsyncClient, "build_request", build)
            source = ApiSource([address], LIMITS)
            anyio.run(source.collect, ApiConfig(url=f"http://{address}/"), "billing")
    assert asked == [b"identity"]
