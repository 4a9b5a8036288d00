"""The probe of a service waits without failing, and reports its last answer."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.unit.roles.conftest import ROLES, ROOT, plugin

module = plugin("container/module_utils/container_wait.py")


def ask(url: str, good: list[int], ca: str, seconds: int) -> str:
    options = {"container": "", "healthy": False, "url": url, "status": good}
    problem, started_again = module.wait({**options, "ca": ca, "seconds": seconds})
    assert not started_again
    return str(problem)


class Service(BaseHTTPRequestHandler):
    """Server that answers with a list of statuses and repeats the last one."""

    statuses: list[int]

    def do_GET(self) -> None:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Discard the message."""


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    handler = type("Handler", (Service,), {"statuses": list(request.param)})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("url", [[200], [503, 503, 200]], indirect=True)
def test_a_service_that_comes_up_is_waited_for(url: str) -> None:
    assert ask(url, [200], "", 10) == ""


@pytest.mark.parametrize(("url", "status"), [([503], 503), ([302, 200], 302)], indirect=["url"])
def test_another_answer_is_told(url: str, status: int) -> None:
    assert ask(url, [200], "", 0) == f"{url} answers {status}, after 0 s"


@pytest.mark.parametrize("url", [[404]], indirect=True)
def test_what_counts_as_good_is_said_by_the_caller(url: str) -> None:
    assert ask(url, [200, 404], "", 0) == ""


def test_no_answer_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        said = ask(place, [200], "", 0)
    assert said.startswith(f"{place} does not answer (")
    assert "refused" in said


def test_a_proxy_of_the_host_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    with HTTPServer(("127.0.0.1", 0), type("Ok", (Service,), {"statuses": [200]})) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert ask(f"http://127.0.0.1:{server.server_port}/", [200], "", 5) == ""
        thread.join()


def test_an_authority_that_is_not_there_is_told() -> None:
    said = ask("https://127.0.0.1:1/", [200], "/nowhere/ca.pem", 0)
    assert "does not answer (/nowhere/ca.pem is not a certificate authority: [Errno 2]" in said


def test_nothing_of_a_site_sends_requests_by_another_way() -> None:
    """Other ways would use a proxy of the host. Tasks have no `uri`: see test_modes.py.

    The engine may have a proxy, but pulls from a loopback address, for which Go uses no proxy.
    """
    other = re.compile(
        r"urllib\.request|urlopen|^\s*(import|from) (requests|httpx)|\bcurl\b|\bwget\b"
    )
    places = [*ROLES.rglob("*.py"), *ROLES.glob("*/tasks/*.yml"), *ROLES.glob("*/vars/*.yml")]
    places += (ROOT / "bundle/jumphost").rglob("*.py")
    found = {
        str(path.relative_to(ROOT))
        for path in places
        if any(other.search(line) for line in path.read_text().splitlines())
    }
    assert found == {"roles/site/module_utils/http_probe.py"}
