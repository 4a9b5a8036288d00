"""The readiness gate, with a real server that becomes ready or not, and a fake engine."""

import http.server
import json
import os
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from tests.unit.roles.conftest import plugin

ready = plugin("app/library/app_ready.py")
CHECKS = {"postgres": "ok", "schema": "ok", "models": "ok", "redis": "ok"}
IDENTITY = {"release": "1.1.0", "colour": "green"}
IMAGE = "sha256:app-1.1.0"
ENGINE = """#!/bin/sh
cd "$(dirname "$0")" || exit 9
echo "$*" >> calls
case "$*" in
    "container inspect airlift-app-green") cat inspect ;;
    "logs --tail 50 airlift-app-green") cat stdout; cat stderr >&2 ;;
    *) exit 9 ;;
esac
"""
Answer = tuple[int, bytes]


def answer(status: int = 200, checks: Any = None, **identity: Any) -> Answer:
    body = {"checks": CHECKS if checks is None else checks, **IDENTITY, **identity}
    return status, json.dumps(body).encode()


class Colour(http.server.ThreadingHTTPServer):
    """A colour: its server, and the engine's data about its container."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        #: Answers in order; the last one is repeated.
        self.answers = [answer()]
        self.asked = 0
        self.then: Callable[[], None] = lambda: None
        (folder / "docker").write_text(ENGINE)
        (folder / "docker").chmod(0o755)
        self.state()
        self.log()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def state(self, *, restarts: int = 0, image: str = IMAGE, **state: Any) -> None:
        state = {"Running": True, "Restarting": False, "ExitCode": 0, **state}
        found = [{"Image": image, "State": state, "RestartCount": restarts}]
        # Replace the file as a whole: the module may be reading it.
        (self.folder / "inspect.new").write_text(json.dumps(found))
        (self.folder / "inspect.new").rename(self.folder / "inspect")

    def log(self, *lines: Any, errors: str = "") -> None:
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (self.folder / "stdout").write_text("".join(f"{line}\n" for line in text))
        (self.folder / "stderr").write_text(errors)

    def next(self) -> Answer:
        self.asked += 1
        self.then()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect, which is expected."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Colour

    def do_GET(self) -> None:
        status, body = self.server.next() if self.path == "/health/ready" else (404, b"")
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body.decode())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Discard the message."""


@pytest.fixture
def green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Colour]:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    server = Colour(tmp_path)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def wait(green: Colour, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run the module as Ansible does; return its result."""

    def run(**more: Any) -> dict[str, Any]:
        options = {"container": "airlift-app-green", "image": IMAGE, "url": green.url, **IDENTITY}
        with patch_module_args({**options, "seconds": 0, **more}), pytest.raises(SystemExit):
            ready.answer(ready.run, ready.OPTIONS)
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


Wait = Callable[..., dict[str, Any]]


# ---------------------------------------------------------------- ready
def test_ready_is_three_good_answers(green: Colour, wait: Wait) -> None:
    degraded = {**CHECKS, "redis": "down"}
    green.answers = [answer(), answer(), answer(checks=degraded)]
    said = wait(seconds=20)
    assert not said.get("failed")
    assert (said["checks"], said["changed"]) == (degraded, False)
    assert green.asked == 3
    assert green.calls() == ["container inspect airlift-app-green"] * 3


def test_only_answers_in_a_row_count(green: Colour, wait: Wait) -> None:
    green.answers = [answer(), answer(), answer(503), answer()]
    assert not wait(seconds=20).get("failed")
    assert green.asked == 6


def test_how_many_is_a_setting(green: Colour, wait: Wait) -> None:
    assert not wait(seconds=20, answers=1).get("failed")
    assert green.asked == 1


def test_nothing_is_asked_in_check_mode(green: Colour, wait: Wait) -> None:
    assert not wait(_ansible_check_mode=True).get("failed")
    assert (green.asked, green.calls()) == (0, [])


# ---------------------------------------------------------------- never ready
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            answer(503, {**CHECKS, "schema": "at 1, wants 2", "models": "not loaded"}),
            "schema: at 1, wants 2; models: not loaded",
        ),
        (answer(503), "it answers 503"),
        ((500, b"<html>oops</html>"), "it answers 500"),
        ((404, b"[1, 2]"), "it answers 404"),
    ],
)
def test_what_keeps_it_from_being_ready_is_named(
    green: Colour, wait: Wait, given: Answer, words: str
) -> None:
    green.answers = [given]
    said = wait()
    assert said["failed"]
    assert said["msg"] == f"airlift-app-green is not ready after 0 s: {words}"


def test_it_is_given_the_time_that_it_has(green: Colour, wait: Wait) -> None:
    green.answers = [answer(503)]
    assert "not ready after 1 s" in wait(seconds=1)["msg"]
    assert 1 <= green.asked <= 3


def test_one_that_does_not_answer(wait: Wait) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        said = wait(url=f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert said["msg"] == "airlift-app-green is not ready after 0 s: it does not answer"


def test_good_answers_that_are_too_few_in_time(green: Colour, wait: Wait) -> None:
    assert "is not ready after 0 s" in wait(answers=1000)["msg"]
    assert green.asked < 10


# ---------------------------------------------------------------- another release
@pytest.mark.parametrize(
    ("status", "identity"),
    [(200, {"release": "1.0.0"}), (200, {"colour": "blue"}), (503, {"release": "1.0.0"})],
)
def test_another_release_or_colour_is_refused_at_once(
    green: Colour, wait: Wait, status: int, identity: dict[str, str]
) -> None:
    green.answers = [answer(status, **identity)]
    found = {**IDENTITY, **identity}
    assert wait(seconds=20)["msg"].startswith(
        f"airlift-app-green answers as release {found['release']}, colour {found['colour']}, "
        "where release 1.1.0, colour green should"
    )
    assert green.asked == 1


def test_another_image_is_not_even_asked(green: Colour, wait: Wait) -> None:
    green.state(image="sha256:other")
    assert wait(seconds=20)["msg"] == (
        f"airlift-app-green runs image sha256:other, the release needs {IMAGE}"
    )
    assert green.asked == 0


def test_a_container_that_is_not_there(green: Colour, wait: Wait) -> None:
    (green.folder / "inspect").unlink()
    assert wait(seconds=20)["msg"] == "there is no container airlift-app-green"


def test_a_container_that_is_exchanged_meanwhile(green: Colour, wait: Wait) -> None:
    green.then = lambda: green.state(image="sha256:other")
    assert "runs image sha256:other" in wait(seconds=20)["msg"]
    assert green.asked == 1


# ---------------------------------------------------------------- containers that stopped
WHY = {"level": "error", "event": "cannot start", "reason": "the schema is at 1,\n it must be 2"}
INFO = {"level": "info", "event": "stopping", "reason": "not this"}


@pytest.mark.parametrize(
    ("lines", "errors", "words"),
    [
        ([INFO, WHY, INFO, "Killed"], "", "the schema is at 1, it must be 2"),
        ([WHY, {**WHY, "level": "critical", "reason": "the last"}], "", "the last"),
        ([INFO], json.dumps(WHY) + "\n", "the schema is at 1, it must be 2"),
        ([{"level": "critical", "event": "no", "exception": "b"}], "", "b"),
        ([{"level": "error", "event": "only this"}], "", "only this"),
        ([{"level": "error"}], "", '{"level": "error"}'),
        ([INFO, "[1]", "null", "python: not found", "  "], "", "python: not found"),
        ([], "exec format error\n", "exec format error"),
        ([], "", "it logged nothing"),
        ([{**WHY, "reason": "head" + "x" * 298}], "", "ad" + "x" * 298),
    ],
)
def test_the_last_words_of_one_that_died(
    green: Colour, wait: Wait, lines: list[Any], errors: str, words: str
) -> None:
    green.state(Running=False, ExitCode=3)
    green.log(*lines, errors=errors)
    assert wait(seconds=20)["msg"] == f"airlift-app-green does not stay up: {words}"
    assert green.asked == 0


def test_one_that_dies_between_two_answers(green: Colour, wait: Wait) -> None:
    def die() -> None:
        if green.asked == 2:
            green.state(Running=False, ExitCode=137)

    green.then = die
    green.log(WHY)
    assert "does not stay up: the schema is at 1" in wait(seconds=20)["msg"]
    assert green.asked == 2


def test_one_that_starts_again_and_again(green: Colour, wait: Wait) -> None:
    green.state(restarts=2, Restarting=True, ExitCode=1)
    green.log(WHY)
    assert "does not stay up: the schema" in wait(seconds=20)["msg"]
    assert green.asked == 0


def test_one_that_starts_again_and_again_while_it_is_watched(green: Colour, wait: Wait) -> None:
    green.answers = [(503, b"{}")]
    green.then = lambda: green.state(restarts=7 + green.asked)
    green.state(restarts=7)
    green.log(WHY)
    assert "does not stay up: the schema" in wait(seconds=20)["msg"]
    assert green.asked == 2


def test_what_it_outlived_long_ago_is_forgotten(green: Colour, wait: Wait) -> None:
    """It stopped while the database was down, and has run ever since."""
    green.state(restarts=12)
    assert not wait(seconds=20).get("failed")


@pytest.mark.parametrize("running", [True, False])
def test_one_start_more_is_forgiven(green: Colour, wait: Wait, running: bool) -> None:
    green.state(restarts=1, Running=running, Restarting=not running)
    assert not wait(seconds=20).get("failed")


# ---------------------------------------------------------------- wrong and broken answers
@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"{}", b'{"colour": "blue"}'])
def test_somebody_else_who_answers_200_is_not_ready(green: Colour, wait: Wait, body: bytes) -> None:
    green.answers = [(200, body)]
    said = wait(answers=1)
    assert said.get("failed")
    assert said["msg"].endswith(": something else answers there: it names no release")


def test_an_answer_that_is_cut_off_is_none(wait: Wait) -> None:
    """A worker was killed while it answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def cut() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")

        thread = threading.Thread(target=cut)
        thread.start()
        try:
            said = wait(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            thread.join()
    assert "is not ready" in said["msg"]


def test_the_colour_is_asked_and_no_proxy(wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    # A real module is a new process; here urllib has cached an earlier environment.
    monkeypatch.setattr(urllib.request, "_opener", None)
    assert not wait(answers=1).get("failed")


def test_a_redirect_is_no_answer_of_the_colour(green: Colour, wait: Wait) -> None:
    """The target of a redirect is not the container that would serve."""
    green.answers = [(302, f"{green.url}/health/ready".encode()), answer()]
    assert wait(answers=1)["msg"].endswith("is not ready after 0 s: it answers 302")
    assert green.asked == 1


def test_a_host_without_an_engine(wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = wait()
    assert said["failed"]
    assert said["msg"] == "there is no container engine on this host"
