"""Checks of a standby: a real server, a fake engine, real files."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

module = plugin("swap/module_utils/swap_standby.py")
IMAGE = "sha256:app-1.0.0"
ENGINE = """#!/bin/sh
cd "$(dirname "$0")" || exit 9
case "$*" in
    "container inspect airlift-app-blue") cat inspect ;;
    "exec airlift-app-blue python -c the program") cat said ;;
    *) exit 9 ;;
esac
"""


class Standby(http.server.ThreadingHTTPServer):
    """A standby: its server, the engine's data, and its secrets."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.status, self.body = 200, {"release": "1.0.0", "checks": {"postgres": "ok"}}
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        (self.secrets / "database_password").write_text("one")
        (folder / "docker").write_text(ENGINE)
        (folder / "docker").chmod(0o755)
        self.said('{"postgres": "", "redis": ""}')
        self.started(5)

    def started(self, ago: float, **state: Any) -> None:
        """Record a container that started some seconds after its secrets were written."""
        when = (self.secrets / "database_password").stat().st_mtime + ago
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when)) + f"{when % 1:.9f}"[1:] + "Z"
        usual = {"Running": True, "Restarting": False, "Paused": False, "Status": "running"}
        state = {**usual, "StartedAt": text, **state}
        (self.folder / "inspect").write_text(json.dumps([{"Image": IMAGE, "State": state}]))

    def says(self, status: int, **body: Any) -> None:
        """Change the server's answer."""
        self.status = status
        self.body.update(body)

    def said(self, text: str) -> None:
        """Record the output of the logins."""
        (self.folder / "said").write_text(text)

    def problem(self, **options: Any) -> str:
        """Return the problem that is found, if any."""
        wanted = {
            "container": "airlift-app-blue",
            "image": ["sha256:other-store", IMAGE],
            "url": f"http://127.0.0.1:{self.server_port}",
            "release": "1.0.0",
            "secrets": str(self.secrets),
            "logins": "the program",
            "seconds": 1,
            **options,
        }
        return str(module.problem_of(wanted))


class Handler(http.server.BaseHTTPRequestHandler):
    server: Standby

    def do_GET(self) -> None:
        body = json.dumps(self.server.body).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def standby(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standby]:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Standby(tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def gone(standby: Standby) -> None:
    (standby.folder / "inspect").unlink()
    (standby.folder / "docker").write_text("#!/bin/sh\nexit 1\n")


Break = Callable[[Standby], object]
FAULTS: list[tuple[str, Break, str]] = [
    ("is not there", gone, "there is no container airlift-app-blue"),
    (
        "is stopped",
        lambda one: one.started(5, Running=False, Status="exited"),
        "airlift-app-blue is exited",
    ),
    (
        "restarts",
        lambda one: one.started(5, Restarting=True, Status="restarting"),
        "airlift-app-blue is restarting",
    ),
    (
        "is older than its secrets",
        lambda one: one.started(-0.5),
        "airlift-app-blue was started before its secrets changed",
    ),
    (
        "is not ready",
        lambda one: one.says(503, checks={"schema": "the schema is 3"}),
        "airlift-app-blue is not ready: schema: the schema is 3",
    ),
    (
        "is another release",
        lambda one: one.says(200, release="0.9.0"),
        "airlift-app-blue answers as release 0.9.0",
    ),
    (
        "cannot log in",
        lambda one: one.said('{"postgres": "FATAL:\\n password", "redis": ""}'),
        "airlift-app-blue cannot log in to postgres: FATAL: password",
    ),
]


def test_a_true_standby_has_no_problem(standby: Standby) -> None:
    assert standby.problem() == ""


@pytest.mark.parametrize(("fault", "sentence"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_standby_that_could_not_serve_is_told(
    standby: Standby, fault: Break, sentence: str
) -> None:
    fault(standby)
    assert standby.problem() == sentence


def test_an_image_of_another_release_is_told(standby: Standby) -> None:
    assert standby.problem(image=["sha256:app-0.9.0"]) == (
        "airlift-app-blue runs another image than that of release 1.0.0"
    )


def test_one_that_does_not_answer_is_told(standby: Standby) -> None:
    problem = standby.problem(url="http://127.0.0.1:1")
    assert problem.startswith("airlift-app-blue does not answer:")
