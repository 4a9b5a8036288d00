"""The smoke test as an operator or a pipeline runs it: real Ansible, a real server with TLS."""

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.roles.conftest import load
from tests.unit.roles.test_tls import Authority
from tests.unit.site.playkit import Desk, role
from tests.unit.site.test_swap_smoke import Handler, Server, said, serving

pytestmark = pytest.mark.slow

SMOKE = load("swap", "defaults/main.yml")
ASKED = [f"{one['method']} {one['path']}" for one in SMOKE["swap_smoke_requests"]]
MORE = [f"{one['method']} {one['path']}" for one in SMOKE["swap_smoke_more"]]
Play = Callable[..., tuple[int, str]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Answer as release 1.1.0 does, which the edge reports as active with blue."""
    certificate, key = Authority(tmp_path).issue("edge", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(context) as one:
        identity = {"status": "ok", "release": "1.1.0", "colour": "blue"}
        one.answers["GET /health"] = said(200, identity)
        for wanted in [*SMOKE["swap_smoke_requests"], *SMOKE["swap_smoke_more"]]:
            one.answers[f"{wanted['method']} {wanted['path']}"] = said(wanted["status"], {})
        one.before = refuse
        yield one


def refuse(handler: Handler) -> bool:
    """Answer 401 to a prediction without a key."""
    if handler.path != "/predict" or handler.headers.get("X-API-Key"):
        return False
    handler.send_response(401)
    handler.send_header("Content-Length", "0")
    handler.end_headers()
    return True


@pytest.fixture
def smoke(tmp_path: Path, server: Server) -> Play:
    """Run the smoke test against the server."""
    (tmp_path / "desk").mkdir()
    desk = Desk(tmp_path / "desk")
    desk.serve("1.1.0", 5)
    ports = load("site", "defaults/main.yml")["site_ports"] | {"https": server.server_port}

    def run(**more: object) -> tuple[int, str]:
        variables = {"site_ports": ports, "site_ca_file": str(tmp_path / "ca.pem"), **more}
        return desk.play(role("smoke"), options=["-e", json.dumps(variables)])

    return run


def test_it_asks_what_the_gates_ask_and_more_and_the_key_is_needed(
    smoke: Play, server: Server
) -> None:
    code, output = smoke(swap_smoke_release="1.1.0")
    assert code == 0, output
    assert "desk serves release 1.1.0 (blue): the smoke test passed" in output
    round_of_all = ["GET /health", *ASKED, *MORE]
    assert server.names() == round_of_all * 2 + ["GET /health", "POST /predict"]
    assert "changed=0" in output


def test_a_route_that_no_gate_asks_fails_it(smoke: Play, server: Server) -> None:
    server.answers["GET /model/info"] = said(500, {"title": "models are gone"})
    code, output = smoke()
    assert code == 2
    assert "GET /model/info answered 500 instead of 200" in output


def test_a_service_that_asks_for_no_key_fails_it(smoke: Play, server: Server) -> None:
    server.before = lambda _: False
    code, output = smoke()
    assert code == 2
    assert "POST /predict answered 200 instead of 401" in output


def test_another_release_than_the_expected_one_fails_it_before_anything_is_asked(
    smoke: Play, server: Server
) -> None:
    code, output = smoke(swap_smoke_release="1.2.0")
    assert code == 2
    assert "desk serves release 1.1.0, not 1.2.0" in " ".join(output.split())
    assert server.names() == []
