"""Fuzz rows for client input to the service: connections, bodies, queries and jobs to start."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Coroutine
from typing import Any

from pydantic import TypeAdapter, ValidationError
from uvicorn.config import Config
from uvicorn.server import ServerState

from app.db import keys
from app.db.values import clean
from app.http.limits import too_deep
from app.http.protocol import Protocol
from app.http.ratelimit import address_name
from app.jobs.listing import Cursor
from app.jobs.schemas import JobQuery, Trigger
from app.main import create_app
from app.settings import Settings
from app.sources import addresses, registry
from tests.fuzz.mutate import Bytes, Json, Lines
from tests.fuzz.parser import Case, Kit, fuzzed

HEAD = 4096


def _settings(kit: Kit) -> Settings:
    """Return the settings of a service without Postgres and Redis: predictions and health."""
    return Settings(
        max_head_bytes=HEAD,
        head_timeout_seconds=600,
        request_timeout_seconds=600,
        file_roots={"inbox": kit.folder},
        api_sources_allowed=["data.client.example:8443", "172.30.2.254:8088"],
        drain_file=kit.folder / "drain",
        log_level="critical",
    )


def _app(kit: Kit) -> Any:
    return create_app(_settings(kit))


class _Transport(asyncio.Transport):
    """The client's end of a connection, which keeps what the service writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.9", 4711), "sockname": ("192.0.2.1", 8000)}.get(name, default)

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def write_eof(self) -> None:
        """Ignore the call: the client keeps reading."""

    def pause_reading(self) -> None:
        """Ignore the call: the whole input is in memory."""

    def resume_reading(self) -> None:
        """Ignore the call: the whole input is in memory."""

    def set_protocol(self, protocol: Any) -> None:
        """Ignore the call: the protocol is fixed."""


WORDS = [b"GET / HTTP/1.1", b"POST /predict HTTP/1.1", b"host: x", b"content-length: 5", b"0", b"5"]
WORDS += [b"transfer-encoding: chunked", b"content-length: +5", b"connection: upgrade", b"1;a=b"]
WORDS += [
    b"x-api-key: k",
    b"expect: 100-continue",
    b"upgrade: websocket",
    b"\x00",
    b": x",
    b" x: y",
]
WORDS += [b"ffffffffffffffff", b"HTTP/1.0", b"http2-settings: x", b"PRI * HTTP/2.0", b"%ff%00"]
REQUESTS = (
    b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b'content-length: 16\r\n\r\n{"text": "good"}GET /predict HTTP/1.1\r\nhost: x\r\n\r\n',
    b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\ntrailer: x-api-key\r\n\r\n"
    b'8;a=b\r\n{"text":\r\n8\r\n "good"}\r\n0\r\nx-trailer: secret\r\n\r\n',
    b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    b"HEAD /items?limit=1 HTTP/1.1\r\nhost: x\r\nx-request-id: abcdefgh\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
)


@fuzzed(
    "HTTP connection",
    "app.http.protocol.Protocol",
    *("app/http/protocol.py", "app/http/context.py", "app/http/routes.py", "app/http/auth.py"),
    form=Lines(WORDS, end=b"\r\n"),
    refusals=(),
)
def of_connection(kit: Kit) -> Case:
    """No input causes a 500, a head stays within its limit, and trailers are not headers."""
    app = _app(kit)
    seen: list[Any] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await app(scope, receive, send)

    config = Config(watched, log_config=None, access_log=False, lifespan="off", ws="none")
    config.load()
    loop = kit.loop()

    async def talk(data: bytes, step: int) -> bytes:
        state = ServerState()
        transport = _Transport()
        protocol = Protocol(config=config, server_state=state, app_state={}, _loop=loop)
        # Protocol takes the limit from the environment, so set the small one here.
        protocol._most = HEAD
        protocol.connection_made(transport)
        for start in range(0, len(data), step):
            if transport.closed:
                break
            protocol.data_received(data[start : start + step])
            assert protocol._unused <= HEAD + step
            await asyncio.sleep(0)
        for _ in range(200):
            if not state.tasks:
                break
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        if state.tasks:
            await asyncio.wait([*state.tasks], timeout=60)
        assert not state.tasks
        return bytes(transport.written)

    def check(data: bytes) -> None:
        once = data.count(b"x-trailer") == 1
        trailing = once and b"\r\n0\r\nx-trailer: secret\r\n\r\n" in data
        for step in (1 + len(data), 1 + len(data) % 61):
            seen.clear()
            answer = loop.run_until_complete(talk(data, step))
            assert b"HTTP/1.1 500" not in answer, answer
            assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer[:80]
            for scope in seen:
                size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
                assert size <= HEAD
                assert not trailing or (b"x-trailer", b"secret") not in scope["headers"]
                assert all(name == name.lower() for name, _ in scope["headers"])

    return Case(REQUESTS, check)


PATHS = (b"POST /predict", b"POST /predict/batch", b"POST /items", b"POST /api/v1/jobs/trigger")
BODIES: dict[bytes, tuple[Any, ...]] = {
    PATHS[0]: ({"text": "It is good"}, {"data": [5.1, 3.5, 1.4, 0.2]}),
    PATHS[1]: (
        {"items": [{"text": "good"}, {"data": [5.1, 3.5, 1.4, 0.2]}, {"text": "\ud83d\ude00"}]},
    ),
    PATHS[2]: ({"name": "demo"},),
    PATHS[3]: (
        {"source_type": "file", "config": {"root": "inbox", "path": "reviews.csv"}},
        {"source_type": "api", "config": {"url": "https://data.client.example:8443/x?y=1"}},
    ),
}


def _call(
    app: Any, method: str, target: bytes, body: bytes, headers: list[tuple[bytes, bytes]]
) -> Coroutine[Any, Any, tuple[int, bytes]]:
    """Return the call of the application in this process."""
    path, _, query = target.partition(b"?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.9", 1),
        "server": ("192.0.2.1", 8000),
        "state": {},
    }

    async def call() -> tuple[int, bytes]:
        status, parts = 0, []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            parts.append(message.get("body", b""))

        await app(scope, receive, send)
        return status, b"".join(parts)

    return call()


@fuzzed(
    "JSON body",
    "app.main.create_app, POST",
    *("app/predict/router.py", "app/predict/schemas.py", "app/items/router.py"),
    *("app/http/limits.py", "app/http/problems.py", "app/predict/artefacts.py"),
    form=Lines(inner=Json(), end=b"\n"),
    refusals=(),
)
def of_body(kit: Kit) -> Case:
    """Each body gets a JSON answer and never a 500."""
    app = _app(kit)
    loop = kit.loop()
    headers = [(b"host", b"x"), (b"content-type", b"application/json")]
    seeds = [
        path + b"\n" + json.dumps(body).encode()
        for path, all_of in BODIES.items()
        for body in all_of
    ]

    def check(data: bytes) -> None:
        first, _, body = data.partition(b"\n")
        target = (first if first in BODIES else PATHS[0]).partition(b" ")[2]
        length = (b"content-length", str(len(body)).encode())
        status, answer = loop.run_until_complete(
            _call(app, "POST", target, body, [*headers, length])
        )
        # Endpoints that store need the database, which is absent here.
        assert status in {200, 400, 404, 413, 422, 503}, (status, answer)
        assert (status == 503) <= (target not in (b"/predict", b"/predict/batch")), answer
        found = json.loads(answer, parse_constant=_no_constant)
        for one in found.get("predictions", [found] if "probability" in found else []):
            assert abs(sum(one["probabilities"].values()) - 1) < 1e-3

    return Case(seeds, check)


def _no_constant(name: str) -> Any:
    raise AssertionError(name)


@fuzzed(
    "query",
    "app.main.create_app, GET",
    *("app/jobs/schemas.py", "app/jobs/router.py", "app/reports/router.py", "app/jobs/listing.py"),
    form=Bytes(
        [b"limit=", b"&", b"%00", b"%ff", b"%ed%a0%80", b"cursor=", b"created_from=", b"+", b";"]
    ),
    refusals=(),
)
def of_query(kit: Kit) -> Case:
    """Each path and query gets a JSON answer and never a 500."""
    app = _app(kit)
    loop = kit.loop()
    job = b"6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
    cursor = Cursor.of("AA" + "A" * 30).text().encode()
    seeds = [
        b"/items?limit=5&after=9",
        b"/api/v1/jobs?status=queued&status=failed&limit=50&cursor=" + cursor,
        b"/api/v1/jobs?created_from=2026-11-22T02:15:04Z&source_type=api",
        b"/api/v1/jobs/status/" + job,
        b"/api/v1/jobs/result/" + job + b"?x=1",
        b"/model/info",
    ]

    def check(data: bytes) -> None:
        # Keep a valid target: the connection's parser refuses any other.
        target = b"/" + data.lstrip(b"/").split(b"\n")[0].split(b" ")[0]
        status, answer = loop.run_until_complete(_call(app, "GET", target, b"", [(b"host", b"x")]))
        assert status not in {0, 500, 504}, (status, answer)
        if not target.startswith((b"/docs", b"/redoc", b"/static", b"/metrics")):
            json.loads(answer)

    return Case(seeds, check)


def _deep(value: Any) -> int:
    """Return how many arrays and objects enclose the innermost value."""
    level, deepest = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        deepest += 1
        level = [x for one in level for x in (one.values() if isinstance(one, dict) else one)]
    return deepest


@fuzzed(
    "depth of JSON",
    "app.http.limits.too_deep",
    "app/http/limits.py",
    form=Json(words=(b"\\", b'"', b"[[[[", b"]]]]", b'{"a":{"b":{"c":')),
    refusals=(),
)
def of_depth(kit: Kit) -> Case:
    """The depth check agrees with a JSON parser."""
    seeds = [json.dumps(body).encode() for all_of in BODIES.values() for body in all_of]
    seeds.append(b'{"a": [[["]\\"}", {"b": {}}]]], "c": "[[["}')

    def check(data: bytes) -> None:
        found = too_deep(data, 4)
        try:
            # Keep both values of a repeated key: a dict would drop the first, which was parsed too.
            value = json.loads(data, object_pairs_hook=lambda pairs: [one for _, one in pairs])
        except (ValueError, RecursionError):
            return
        assert found == (_deep(value) > 4), data

    return Case(seeds, check)


@fuzzed(
    "job to start",
    "app.jobs.schemas.Trigger, and the check of its source",
    *("app/sources/schemas.py", "app/sources/addresses.py", "app/sources/database.py"),
    *("app/sources/file.py", "app/sources/api.py", "app/db/values.py"),
    form=Json(words=(b"http://", b"@", b"[::1]", b"0x7f.1", b"%2e", b"../", b"\\u0000", b":5432")),
    refusals=(ValidationError,),
)
def of_trigger(kit: Kit) -> Case:
    """An accepted job survives storing unchanged, and its source accepts it or names the field."""
    adapter: TypeAdapter[Any] = TypeAdapter(Trigger)
    settings = _settings(kit).model_copy(update={"database_sources": {}})
    sources = registry.build(settings)
    database = {"source": "crm", "query": "SELECT :a", "params": {"a": 1}, "text_field": "t"}
    seeds = [json.dumps(body).encode() for body in BODIES[PATHS[3]]]
    seeds.append(json.dumps({"source_type": "database", "config": database}).encode())

    def check(data: bytes) -> None:
        found = adapter.validate_json(data)
        kept = found.model_dump(mode="json")
        assert adapter.validate_python(kept) == found
        assert clean(kept) == kept
        source = sources[found.source_type]
        refusal = source.check(found.config, "anonymous")
        if refusal is not None:
            assert refusal.field
            assert refusal.message.isprintable()
        elif found.source_type == "api":
            assert "data.client.example" in found.config.url.lower() or "172" in found.config.url

    return Case(seeds, check)


@fuzzed(
    "cursor",
    "app.jobs.listing.Cursor.of",
    "app/jobs/listing.py",
    form=Bytes([b"AA", b"==", b"-_", b"//", b"zzzzzzzz"]),
    refusals=(ValueError,),
)
def of_cursor(kit: Kit) -> Case:
    """An accepted cursor has the one form that the service writes for its position."""
    moments = ("AA" + "A" * 30, "AAABBBBB" + "c" * 24)
    seeds = [Cursor.of(one).text().encode() for one in moments]

    def check(data: bytes) -> None:
        text = data.decode("latin-1")
        assert Cursor.of(text).text() == text
        JobQuery.model_validate({"cursor": text})

    return Case(seeds, check)


@fuzzed(
    "file of keys",
    "app.db.keys.read",
    "app/db/keys.py",
    form=Json(words=(b'"client"', b'"scopes"', b'"key_sha256"')),
    refusals=(keys.KeysError,),
)
def of_keys(kit: Kit) -> Case:
    """Each entry can be stored as a row under a digest of 32 bytes."""
    entry = {"client": "crm", "key_sha256": "a" * 64, "scopes": ["predict"], "label": "night"}
    seed = json.dumps([entry, {"client": "b", "key_sha256": "b" * 64}]).encode()

    def check(data: bytes) -> None:
        for digest, found in keys.read(kit.file("keys.json", data)).items():
            assert len(digest) == 32
            row = found.row()
            assert clean(row) == row
            assert row["client"].isprintable()

    return Case([seed], check)


@fuzzed(
    "address",
    "app.sources.addresses.literal",
    *("app/sources/addresses.py", "app/http/ratelimit.py"),
    form=Bytes(
        [b"0x7f", b"127", b"::ffff:", b"64:ff9b::", b"2002:", b".", b"%lo", b"[", b"017700000001"]
    ),
    refusals=(),
)
def of_address(kit: Kit) -> Case:
    """An address that the system would connect to internally is blocked in every notation."""
    seeds = [b"127.0.0.1", b"::1", b"8.8.8.8", b"10.1.2.3", b"2001:db8::1", b"::ffff:10.0.0.1"]

    def check(data: bytes) -> None:
        host = data.decode("latin-1")
        address_name(host)
        addresses.hidden(f"http://{host}/x")
        found = addresses.literal(host)
        if found is not None:
            addresses.blocked(found)
        try:
            packed = socket.inet_aton(host) if host.isascii() and "\0" not in host else None
        except OSError:
            packed = None
        if packed is not None:
            real = ipaddress.IPv4Address(packed)
            assert found is not None, host
            assert addresses.blocked(found) >= (real.is_private or real.is_loopback), host

    return Case(seeds, check)
