"""`airlift-swap fit`: whether an edge may take traffic, as keepalived asks every few seconds."""

import fcntl
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from swap_agent import __main__ as command
from swap_agent import fit

from tests.unit.roles.conftest import ROLES


class Host:
    """An edge as `fit` sees it: files, and an Nginx that answers with a generation."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.answers = root, "7"
        self.path = root / "swap.json"
        (root / "edge/trees/000007").mkdir(parents=True)
        (root / "edge/live").symlink_to("trees/000007")
        (root / "swap").mkdir()
        (root / "run").mkdir()
        (root / "swap/state.json").write_text('{"active": "blue"}')
        self.settings: dict[str, Any] = {
            "root": str(root / "edge"),
            "state_file": str(root / "swap/state.json"),
            "probe_address": "127.0.0.1",
            "probe_port": port,
            "watch_dir": str(root / "run"),
        }
        self.save()
        self.results("replicas.json")

    def save(self, **more: Any) -> None:
        self.settings |= more
        self.path.write_text(json.dumps(self.settings))

    def results(self, name: str, age: float = 0, **more: Any) -> None:
        (self.root / "run" / name).write_text(json.dumps({"clock": time.monotonic() - age, **more}))

    def unfit(self) -> str:
        return fit.unfit(str(self.path))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    class Nginx(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = found.answers.encode()
            self.send_response(200 if self.path == "/_swap/gen" and body else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nginx)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = Host(tmp_path, server.server_address[1])
    yield found
    server.shutdown()
    server.server_close()


def test_an_edge_alone_that_serves_is_fit(host: Host) -> None:
    assert host.unfit() == ""


def test_what_makes_an_edge_unfit_is_said(host: Host) -> None:
    host.answers = "6"
    assert host.unfit() == "Nginx answers generation 6, the live tree is 7"
    host.answers = ""
    assert host.unfit().startswith("Nginx does not answer")
    host.answers = "7"
    host.results("replicas.json", age=11)
    assert host.unfit().startswith("the watch over the replicas does not run")
    (host.root / "swap/state.json").unlink()
    assert host.unfit().startswith("nothing is installed here yet")


def test_a_change_in_progress_is_no_fault(host: Host) -> None:
    """Between the rename of the tree and the reload of Nginx, the difference is expected."""
    host.answers = "6"
    with (host.root / "swap/agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert host.unfit() == ""
    assert host.unfit() != ""


def test_with_other_edges_the_watch_decides(host: Host) -> None:
    host.save(edges={"edge-2": "10.0.0.2:8080"})
    assert "has not compared this edge" in host.unfit(), "unknown after a boot"
    host.results("edges.json", unfit="edge-2 serves generation 8, this edge 7")
    assert host.unfit() == "edge-2 serves generation 8, this edge 7"
    host.results("edges.json", unfit="")
    assert host.unfit() == ""
    host.results("edges.json", age=16, unfit="")
    assert "has not compared this edge" in host.unfit()


def test_nginx_that_accepts_and_never_answers_costs_a_second(host: Host) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as frozen:
        host.save(probe_port=frozen.server_address[1])
        assert host.unfit().startswith("Nginx does not answer")


def test_the_program_answers_with_its_exit_code(host: Host, tmp_path: Path) -> None:
    """keepalived calls it without the engine and without the rest of the agent."""
    text = (ROLES / "swap_agent/files/airlift-swap").read_text()
    text = text.replace("/usr/local/lib/airlift", str(ROLES / "swap_agent/files"))
    text = text.replace("fit.main(sys.argv[2:])", f"fit.main(sys.argv[2:], {str(host.path)!r})")
    heavy = "{'asyncio', 'subprocess', 'argparse', 'swap_agent.nginx'}"
    text = text.replace("sys.exit(fit", f"assert not {heavy} & set(sys.modules)\n    sys.exit(fit")
    program = tmp_path / "airlift-swap"
    program.write_text(text)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        done = [sys.executable, "-I", str(program), *words]
        return subprocess.run(done, capture_output=True, text=True, env={"PATH": ""}, check=False)

    said = call("fit")
    assert (said.returncode, said.stdout, said.stderr) == (
        0, "fit: this edge may take traffic\n", "",
    )  # fmt: skip
    host.answers = "6"
    said = call("fit")
    assert said.returncode == 1
    assert said.stderr == (
        "airlift-swap: not fit: Nginx answers generation 6, the live tree is 7\n"
    )
    said = call("fit", "--json")
    assert said.returncode == 1
    assert json.loads(said.stdout) == {
        "changed": False, "fit": False, "why": "Nginx answers generation 6, the live tree is 7",
    }  # fmt: skip


def test_with_settings_elsewhere(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["airlift-swap", "--settings", str(host.path), "fit"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 0
