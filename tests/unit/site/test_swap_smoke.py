"""The smoke test accepts correct answers only: real servers with right and wrong answers."""

import contextlib
import http.server
import json
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from tests.unit.roles.conftest import plugin
from tests.unit.roles.test_tls import Authority

smoke = plugin("swap/library/swap_smoke.py")
KEY = "Zb7kQ9xLm2Vt5RyC8wPa4NdE6gHj3TfU0sXiOoB1qWvKzYhM"
GREEN = {"status": "ok", "release": "1.1.0", "colour": "green"}
REQUESTS = [
    {"method": "GET", "path": "/items", "status": 200},
    {"method": "POST", "path": "/items", "status": 201, "body": {"name": "smoke"}},
]
Answer = tuple[int, bytes]


def said(status: int, body: Any) -> Answer:
    return status, json.dumps(body).encode()


class Server(http.server.ThreadingHTTPServer):
    """Server that gives prepared answers and records requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {
            "GET /health": said(200, GREEN),
            "GET /items": said(200, []),
            "POST /items": said(201, {"id": 1}),
        }
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.before: Callable[[Handler], bool] = lambda _: False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def names(self) -> list[str]:
        return [what for what, _, _ in self.asked]

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect, which is expected."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def answer(self) -> None:
        what = f"{self.command} {self.path}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((what, dict(self.headers), body))
        if self.server.before(self):
            return
        status, text = self.server.answers.get(what, (404, b"nothing here"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Discard the message."""


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server()
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


@pytest.fixture
def try_it(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run the module as Ansible does; return its result."""

    def run(url: str, **more: Any) -> dict[str, Any]:
        wanted = {"url": url, "release": "1.1.0", "colour": "green", "requests": REQUESTS}
        with patch_module_args({**wanted, **more}), pytest.raises(SystemExit) as ended:
            smoke.answer(smoke.run, smoke.OPTIONS)
        out = capsys.readouterr()
        answer: dict[str, Any] = json.loads(out.out)
        assert bool(answer.get("failed")) == bool(ended.value.code)
        # The options that a task echoes are masked as well.
        assert more.get("key", KEY) not in out.out + out.err
        return answer

    return run


Try = Callable[..., dict[str, Any]]


def test_good_answers_are_counted(server: Server, try_it: Try) -> None:
    answer = try_it(server.url, rounds=3)
    assert (answer["asked"], answer["changed"]) == (9, False)
    assert server.names() == ["GET /health", "GET /items", "POST /items"] * 3
    assert json.loads(server.asked[2][2]) == {"name": "smoke"}
    assert server.asked[2][1]["Content-Type"] == "application/json"
    assert server.asked[1][2] == b""


def test_every_request_has_a_connection_of_its_own(server: Server, try_it: Try) -> None:
    """Otherwise a proxy would send all of them to one replica."""
    assert server.connections == 0
    assert try_it(server.url, rounds=2)["asked"] == server.connections == 6


def test_a_service_that_comes_up_is_waited_for(server: Server, try_it: Try) -> None:
    server.answers["GET /health"] = said(503, {})

    def up() -> None:
        server.answers["GET /health"] = said(200, GREEN)

    later = threading.Timer(0.3, up)
    later.start()
    assert try_it(server.url, seconds=60)["asked"] == 3
    later.join()


def test_only_identity_is_asked_when_nothing_else_is_wanted(server: Server, try_it: Try) -> None:
    assert try_it(server.url, requests=[])["asked"] == 1
    assert server.names() == ["GET /health"]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b"it\n  broke", "GET /items answered 500 instead of 200: it broke"),
        (204, b"", "GET /items answered 204 instead of 200:"),
        (404, b"\xff" * 500, "GET /items answered 404 instead of 200: " + "\ufffd" * 200),
    ],
)
def test_a_wrong_status(server: Server, try_it: Try, status: int, body: bytes, words: str) -> None:
    server.answers["GET /items"] = status, body
    answer = try_it(server.url)
    assert (answer["failed"], answer["asked"]) == (True, 0)
    assert answer["msg"].strip() == words
    assert server.names() == ["GET /health", "GET /items"], "it stops at the first wrong answer"


def test_an_error_may_be_what_is_wanted(server: Server, try_it: Try) -> None:
    refused = {"method": "GET", "path": "/admin", "status": "404"}
    assert try_it(server.url, requests=[refused])["asked"] == 2


@pytest.mark.parametrize(
    ("release", "colour"), [("1.0.0", "green"), ("1.1.0", "blue"), ("1.1.0", None)]
)
def test_another_release_or_colour(
    server: Server, try_it: Try, release: str, colour: str | None
) -> None:
    server.answers["GET /health"] = said(200, {"release": release, "colour": colour})
    answer = try_it(server.url)
    assert answer["msg"] == (
        f"release {release}, colour {colour} answers at {server.url} where release 1.1.0, colour "
        "green should"
    )
    assert server.names() == ["GET /health"]


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"[]", b'"1.1.0 green"', b""])
def test_something_else_answers(server: Server, try_it: Try, body: bytes) -> None:
    server.answers["GET /health"] = 200, body
    assert "release None, colour None answers" in try_it(server.url)["msg"]


def test_one_replica_of_two_is_found_by_asking_often(server: Server, try_it: Try) -> None:
    old = said(200, {**GREEN, "release": "1.0.0"})

    def turns(_: Handler) -> bool:
        server.answers["GET /health"] = old if len(server.asked) % 2 == 0 else said(200, GREEN)
        return False

    server.before = turns
    assert try_it(server.url, requests=[], rounds=1)["asked"] == 1
    server.asked.clear()
    answer = try_it(server.url, requests=[], rounds=2)
    assert answer["asked"] == 1
    assert "release 1.0.0, colour green answers" in answer["msg"]


def test_nobody_answers(try_it: Try) -> None:
    with serving() as server:
        url = server.url
    assert try_it(url)["msg"].startswith(f"GET /health got no answer from {url}: ")
    assert "Connection refused" in try_it(url)["msg"]


def test_one_who_is_silent_is_not_waited_for_longer(server: Server, try_it: Try) -> None:
    over = threading.Event()
    server.before = lambda _: over.wait(20)
    answer = try_it(server.url, timeout=1)
    over.set()
    assert "GET /health got no answer" in answer["msg"]
    assert "timed out" in answer["msg"]


def test_one_who_hangs_up(server: Server, try_it: Try) -> None:
    def hang_up(handler: Handler) -> bool:
        handler.close_connection = True
        return True

    server.before = hang_up
    assert "GET /health got no answer" in try_it(server.url)["msg"]


# ---------------------------------------------------------------- HTTPS
@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.contextmanager
def secure(authority: Authority, *names: str) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("edge", list(names)))
    with serving(context) as server:
        yield server.url.replace("http:", "https:")


def test_https_with_the_sites_authority(authority: Authority, try_it: Try) -> None:
    with secure(authority, "127.0.0.1") as url:
        assert try_it(url, ca_file=authority.path, key=KEY)["asked"] == 3


@pytest.mark.parametrize("ca_file", ["", "other"])
def test_https_of_an_authority_that_nobody_trusts(
    authority: Authority, try_it: Try, tmp_path: Path, ca_file: str
) -> None:
    if ca_file:
        (tmp_path / "b").mkdir()
        ca_file = Authority(tmp_path / "b", "other").path
    with secure(authority, "127.0.0.1") as url:
        assert "certificate verify failed" in try_it(url, ca_file=ca_file, key=KEY)["msg"]
        assert try_it(url, ca_file=ca_file, validate=False)["asked"] == 3


def test_https_with_a_certificate_for_somebody_else(authority: Authority, try_it: Try) -> None:
    with secure(authority, "192.0.2.1", "edge.example") as url:
        assert "127.0.0.1" in try_it(url, ca_file=authority.path)["msg"]


# ---------------------------------------------------------------- the key
def test_the_key_goes_with_every_request(server: Server, try_it: Try) -> None:
    try_it(server.url, key=KEY)
    sent = [{k.lower(): v for k, v in headers.items()} for _, headers, _ in server.asked]
    assert [headers.get("x-api-key") for headers in sent] == [KEY] * 3


def test_without_a_key_there_is_no_header(server: Server, try_it: Try) -> None:
    try_it(server.url)
    assert not any("x-api-key" in str(headers).lower() for _, headers, _ in server.asked)


def test_the_key_is_in_no_error(server: Server, try_it: Try) -> None:
    """Not even if the server repeats it; the fixture searches all output."""
    server.answers["GET /items"] = said(401, {"detail": f"unknown key {KEY}"})
    assert "answered 401" in try_it(server.url, key=KEY)["msg"]
    server.answers["GET /health"] = said(200, {"release": KEY, "colour": KEY})
    assert "answers at" in try_it(server.url, key=KEY)["msg"]


def test_no_part_of_the_key_is_in_an_error(server: Server, try_it: Try) -> None:
    server.answers["GET /items"] = 401, b"x" * 160 + KEY.encode()
    assert KEY[:20] not in try_it(server.url, key=KEY)["msg"]


# ---------------------------------------------------------------- broken answers and proxies
@pytest.mark.parametrize(
    ("status", "words"),
    [(200, "GET /health got no answer"), (500, "GET /health answered 500 instead of 200: {")],
)
def test_an_answer_that_is_cut_off(server: Server, try_it: Try, status: int, words: str) -> None:
    def cut(handler: Handler) -> bool:
        handler.send_response(status)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"{")
        handler.close_connection = True
        return True

    server.before = cut
    assert words in try_it(server.url)["msg"]


def test_an_error_whose_body_does_not_come(server: Server, try_it: Try) -> None:
    over = threading.Event()

    def stall(handler: Handler) -> bool:
        handler.send_response(500)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        over.wait(20)
        return True

    server.before = stall
    try:
        answer = try_it(server.url, timeout=1)
    finally:
        over.set()
    assert "GET /health" in answer["msg"]


def test_an_authority_that_is_not_there(authority: Authority, try_it: Try) -> None:
    with secure(authority, "127.0.0.1") as url:
        assert "/nowhere/ca.pem" in try_it(url, ca_file="/nowhere/ca.pem")["msg"]


def test_the_site_is_asked_and_no_proxy(
    server: Server, try_it: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        # A real module is a new process; here urllib has cached an earlier environment.
        monkeypatch.setattr(urllib.request, "_opener", None)
        answer = try_it(server.url, key=KEY)
        assert proxy.asked == [], "the proxy was given the key"
    assert answer["asked"] == 3


def test_a_redirection_is_an_answer_and_is_not_followed(server: Server, try_it: Try) -> None:
    with serving() as other:

        def elsewhere(handler: Handler) -> bool:
            handler.send_response(302)
            handler.send_header("Location", other.url + handler.path)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        server.before = elsewhere
        answer = try_it(server.url, key=KEY)
        assert other.asked == [], "the other server was given the key"
    assert "answered 302 instead of 200" in answer["msg"]
