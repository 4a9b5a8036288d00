"""The head of a request on the service's own port: limits of size and time, no trailers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.unit.app.appkit import ROOT, Process, eventually, free_port, sample

MOST = 32_768
SECONDS = 1.0
GET = b"GET /predict HTTP/1.1\r\nhost: x\r\n"
CHUNKED = (
    b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n"
)
BODY = b'10\r\n{"text": "good"}\r\n'


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Run gunicorn with one worker and no dependencies."""
    folder = tmp_path_factory.mktemp("head")
    port = free_port()
    log = folder / "log"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PORT": str(port),
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "prom"),
        "WEB_CONCURRENCY": "1",
        "HEAD_TIMEOUT_SECONDS": str(SECONDS),
    }
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = Process(popen, log, f"http://127.0.0.1:{port}")
    eventually(lambda: process.http.get("/health").status_code == 200, seconds=40)
    yield process
    process.http.close()
    assert process.stop() == 0


def connect(web: Process) -> socket.socket:
    host, _, port = web.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def rest(connection: socket.socket) -> bytes:
    """Return everything that the server sends until it closes the connection."""
    answer = b""
    while part := connection.recv(65536):
        answer += part
    return answer


def one(connection: socket.socket) -> bytes:
    """Return one answer with a length, from a connection that stays open."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    (length,) = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def refused(answer: bytes, status: int, slug: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"\r\ncontent-type: application/problem+json" in head
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["type"] == f"urn:airlift:problem:{slug}"


def memory(web: Process) -> int:
    """Return the resident memory of the only worker, in bytes."""
    (worker,) = subprocess.run(
        ["ps", "-o", "rss=", "--ppid", str(web.popen.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return int(worker) * 1024


def flood(web: Process, begin: bytes, part: bytes, count: int) -> tuple[bytes, int]:
    """Send `begin` and `count` parts until the server closes; return its answer and the bytes."""
    sent = 0
    with connect(web) as connection:
        connection.sendall(begin)
        try:
            for _ in range(count):
                connection.sendall(part)
                sent += len(part)
        except OSError:
            pass  # the service closed it
        try:
            return rest(connection), sent
        except ConnectionResetError:
            return b"", sent


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (GET + b"a: ", b"x" * 65_536),
        (b"GET /", b"x" * 65_536),
        (GET, b"a: b\r\n" * 10_000),
        (GET, b"x" * 65_536),
        (b"", b"\r\n" * 32_768),
    ],
    ids=["one-header", "request-line", "many-headers", "one-name", "empty-lines"],
)
def test_a_head_of_160_mib_is_a_431_and_no_memory(web: Process, begin: bytes, part: bytes) -> None:
    web.http.get("/predict")
    before = memory(web)
    answer, _ = flood(web, begin, part, 160 * 1024 * 1024 // len(part))
    refused(answer, 431, "head-too-large")
    assert memory(web) - before < 16 * 1024 * 1024
    assert web.http.get("/predict").status_code == 200


@pytest.mark.parametrize(
    "begin",
    [
        CHUNKED + b"\r\n" + BODY + b"0\r\na: ",
        CHUNKED + b"\r\n5;a=",
    ],
    ids=["trailer", "chunk-extension"],
)
def test_what_stands_between_the_parts_of_a_body_is_bounded_too(web: Process, begin: bytes) -> None:
    before = memory(web)
    answer, _ = flood(web, begin, b"x" * 65_536, 2560)
    refused(answer, 431, "head-too-large")
    assert memory(web) - before < 16 * 1024 * 1024


def test_a_body_in_small_chunks_is_no_large_head(web: Process) -> None:
    text = b'{"text": "' + b"good " * 3000 + b'"}'
    with connect(web) as connection:
        connection.sendall(CHUNKED + b"\r\n")
        connection.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n")
        assert one(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("size", "status"), [(MOST - 200, 200), (MOST + 1, 431)], ids=["below", "above"]
)
@pytest.mark.parametrize("form", ["header", "headers", "line"])
def test_the_size_of_a_head_is_exact(web: Process, size: int, status: int, form: str) -> None:
    line, headers = b"/predict", b""
    if form == "line":
        line += b"?x=" + b"y" * size
    elif form == "header":
        headers = b"a: " + b"x" * size + b"\r\n"
    else:
        headers = b"a: " + b"x" * 95 + b"\r\n"
        headers *= size // len(headers) + (status != 200)
    with connect(web) as connection:
        # Below the limit, send two heads on one kept-alive connection.
        for _ in range(2 if status == 200 else 1):
            connection.sendall(b"GET " + line + b" HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n")
            answer = one(connection)
            # The application may still refuse the query.
            assert answer.startswith(b"HTTP/1.1 %d " % status) or (
                form == "line" and status == 200 and answer.startswith(b"HTTP/1.1 422 ")
            )
    assert web.http.get("/predict").status_code == 200


@pytest.mark.parametrize("begin", [b"G", GET, GET + b"a: "], ids=["line", "headers", "value"])
def test_a_head_that_stays_half_sent_is_a_408(web: Process, begin: bytes) -> None:
    with connect(web) as connection:
        connection.sendall(begin)
        refused(rest(connection), 408, "head-timeout")


def dribble(connection: socket.socket, data: bytes) -> bytes:
    """Send byte by byte until the server answers or closes; return the answer."""
    connection.settimeout(0.1)
    answer = b""
    for byte in data:
        connection.sendall(bytes([byte]))
        try:
            answer = connection.recv(65536)
        except TimeoutError:
            continue
        break
    connection.settimeout(20)
    return answer + rest(connection)


def test_a_head_byte_by_byte_is_a_408(web: Process) -> None:
    with connect(web) as connection:
        refused(dribble(connection, GET * 10), 408, "head-timeout")


def test_the_second_head_of_a_connection_byte_by_byte_is_a_408(web: Process) -> None:
    with connect(web) as connection:
        connection.sendall(GET + b"\r\n")
        assert one(connection).startswith(b"HTTP/1.1 200 ")
        refused(dribble(connection, GET * 10), 408, "head-timeout")


def test_empty_lines_do_not_keep_a_connection(web: Process) -> None:
    with connect(web) as connection:
        connection.sendall(GET + b"\r\n")
        one(connection)
        refused(dribble(connection, b"\r\n" * 100), 408, "head-timeout")


def test_a_connection_that_asks_nothing_is_closed(web: Process) -> None:
    with connect(web) as connection:
        assert rest(connection) == b""


def test_a_body_that_dribbles_after_its_answer_is_cut_off(web: Process) -> None:
    with connect(web) as connection:
        # Probes read no body, so the answer arrives before it.
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        assert one(connection).startswith(b"HTTP/1.1 200 ")
        with contextlib.suppress(OSError):  # the server closed it during the write
            assert dribble(connection, b"x" * 100) == b""


def test_a_connection_that_is_kept_and_idle_outlives_the_time_of_a_head(web: Process) -> None:
    with connect(web) as connection:
        for body in (b"", b"x" * 10):
            length = b"content-length: %d\r\n\r\n" % len(body)
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n" + length)
            assert one(connection).startswith(b"HTTP/1.1 200 ")
            connection.sendall(body)
            time.sleep(2 * SECONDS)
        connection.sendall(GET + b"\r\n")
        assert one(connection).startswith(b"HTTP/1.1 200 ")


def test_a_large_body_and_the_head_behind_it_are_two(web: Process) -> None:
    body = json.dumps({"texts": ["good " * 3000] * 50}).encode()
    post = b"POST /predict/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with connect(web) as connection:
        for _ in range(3):
            connection.sendall(post + b"content-length: %d\r\n\r\n" % len(body) + body + GET)
            assert one(connection).startswith(b"HTTP/1.1 ")
            connection.sendall(b"\r\n")
            assert one(connection).startswith(b"HTTP/1.1 200 ")


def test_what_is_refused_is_counted(web: Process) -> None:
    with connect(web) as connection:
        connection.sendall(GET + b"a: " + b"x" * 2 * MOST + b"\r\n\r\n")
        refused(rest(connection), 431, "head-too-large")
    assert sample(web, 'app_requests_refused_total{limit="head-too-large"}') >= 1


def test_a_refusal_is_never_a_part_of_another_answer(web: Process) -> None:
    """The second head is too large and arrives while the first request is being answered."""
    with connect(web) as connection:
        connection.sendall(GET + b"\r\n" + GET + b"a: " + b"x" * 2 * MOST + b"\r\n\r\n")
        answer = rest(connection)
        assert b" 431 " not in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("name", [b"x-api-key", b"x-request-id", b"x-forwarded-for", b"host"])
def test_a_trailer_is_no_header(web: Process, name: bytes) -> None:
    request = CHUNKED + b"\r\n" + BODY + b"0\r\n" + name + b": sent-as-a-trailer\r\n\r\n"
    with connect(web) as connection:
        for _ in range(2):
            connection.sendall(request)
            answer = one(connection)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"sent-as-a-trailer" not in answer
