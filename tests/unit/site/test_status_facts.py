"""Facts that status collects from a host, with a fake engine client and everything else real."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin
from tests.unit.site import enginekit
from tests.unit.site.enginekit import Engine
from tests.unit.site.statuskit import Programs

engine = plugin("status/module_utils/status_engine.py")
asks = plugin("status/module_utils/status_asks.py")
image_identity = plugin("site/module_utils/image_identity.py")
rules = plugin("status/module_utils/status_rules.py")
NOW = 1_800_000_000.0


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return Programs(folder)


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with enginekit.running() as one:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{one.path}")
        yield one


def raw(service: str, status: str = "running", **state: Any) -> dict[str, Any]:
    """Return a container as the engine shows it."""
    return {
        "Id": f"id-{service}",
        "Name": f"/airlift-{service}",
        "Image": "sha256:i1",
        "RestartCount": 0,
        "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}},
        "State": {
            "Status": status,
            "Running": status == "running",
            "Pid": 7,
            "ExitCode": 0,
            "StartedAt": "2027-01-15T07:59:00.123456789Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            **state,
        },
        "Config": {
            "Env": ["PATH=/bin", "RELEASE=1.0.0", "COLOUR=blue", "LOG_LEVEL=info"],
            "Labels": {
                "airlift.service": service,
                "airlift.component": "app",
                "airlift.fingerprint": "f1",
            },
        },
        "NetworkSettings": {"Ports": {"8000/tcp": [{"HostPort": "8001"}]}},
    }


def shown(paper: Engine, *containers: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the engine these containers; return their descriptions."""
    paper.run(*containers)
    found: list[dict[str, Any]] = engine.containers(NOW)[0]
    return found


# ---------------------------------------------------------------- the engine
def test_a_container_is_described_without_its_environment(paper: Engine) -> None:
    (one,) = shown(paper, raw("app-blue", Health={"Status": "healthy", "Log": []}))
    assert (one["service"], one["state"], one["ports"]) == ("app-blue", "healthy", [8001])
    assert one["seconds"] == 60
    assert "LOG_LEVEL" not in json.dumps(one)


def test_an_engine_is_known_by_its_image_store(paper: Engine) -> None:
    assert engine.about() == {"store": "overlay2", "root": "/var/lib/docker"}
    paper.known["/info"]["DriverStatus"] = [["driver-type", image_identity.CONTAINERD]]
    assert engine.about()["store"] == "containerd"


def test_an_engine_that_is_down_says_so(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    with pytest.raises(engine.EngineError, match="there is no container engine on this host"):
        engine.about()
    programs.answer("docker", "info")
    with pytest.raises(engine.EngineError, match="the container engine does not run"):
        engine.about()


def test_what_an_engine_refuses_is_told_in_its_words(paper: Engine) -> None:
    paper.known["/info"], paper.status = {"message": "the daemon is shutting down"}, 503
    with pytest.raises(engine.EngineError, match="the daemon is shutting down"):
        engine.about()


def test_what_was_removed_meanwhile_is_left_out(paper: Engine) -> None:
    paper.run(raw("app-blue"), raw("app-green"))
    del paper.known["/containers/id-app-blue/json"]
    assert [one["service"] for one in engine.containers(NOW)[0]] == ["app-green"]


def test_a_container_that_restarts_carries_its_last_error(
    paper: Engine, programs: Programs
) -> None:
    log = "1:M ready\n1:M # Bad file format reading the append only file\n1:M bye\n"
    programs.answer("docker", "logs", out=log)
    redis = {**raw("redis", "restarting"), "RestartCount": 4}
    (one,) = shown(paper, redis)
    assert (one["state"], one["restarts"]) == ("restarting", 4)
    assert one["said"] == "1:M # Bad file format reading the append only file"


def test_the_reason_is_taken_from_lines_that_are_json(paper: Engine, programs: Programs) -> None:
    lines = [
        {"level": "error", "event": "startup failed", "reason": "no password"},
        {"level": "info", "event": "an error page was served"},
    ]
    programs.answer("docker", "logs", err="\n".join(map(json.dumps, lines)))
    (one,) = shown(paper, raw("app-blue", "exited", ExitCode=1))
    assert one["said"] == "no password"


def test_a_quiet_container_says_what_its_health_check_found(
    paper: Engine, programs: Programs
) -> None:
    programs.answer("docker", "logs", out="started\n")
    log = [{"ExitCode": 1, "Output": "no answer on port 8000: timed out"}]
    (one,) = shown(paper, raw("app-blue", Health={"Status": "unhealthy", "Log": log}))
    assert (one["state"], one["said"]) == ("unhealthy", "no answer on port 8000: timed out")


def test_a_container_that_ran_out_of_memory_says_so(paper: Engine) -> None:
    (one,) = shown(paper, raw("app-blue", "exited", OOMKilled=True, ExitCode=137))
    assert "memory limit" in one["said"]


def pair(paper: Engine, **change: str) -> list[str]:
    """Return the differences between a standby and an active colour with other settings."""
    standby, active = raw("app-blue"), raw("app-green")
    active["Config"]["Env"] = ["PATH=/bin", "RELEASE=1.1.0", "COLOUR=green", "LOG_LEVEL=info"]
    active["Config"]["Env"] += ["ONLY_NEW=1"]
    active["Image"] = "sha256:i2"
    active["Config"]["Labels"]["airlift.fingerprint"] = change.pop("fingerprint", "f1")
    for name, value in change.items():
        active["Config"]["Env"] = [
            one for one in active["Config"]["Env"] if not one.startswith(f"{name}=")
        ] + [f"{name}={value}"]
    for name, release in (("sha256:i1", "1.0.0"), ("sha256:i2", "1.1.0")):
        env = ["PATH=/bin", f"RELEASE={release}"]
        paper.known[f"/images/{name}/json"] = {"Id": name, "Config": {"Env": env}}
    found: list[str] = engine.differences([standby, active], ["EXTRA"])
    return found


def test_a_standby_is_compared_with_what_serves(paper: Engine) -> None:
    assert pair(paper) == []
    assert pair(paper, LOG_LEVEL="debug") == ["LOG_LEVEL"]
    assert pair(paper, EXTRA="1") == ["EXTRA"], "both need a setting of the inventory"
    assert pair(paper, fingerprint="f2") == ["secrets"]


def logged_in(paper: Engine, *containers: dict[str, Any]) -> dict[str, dict[str, str]]:
    paper.run(*containers)
    found: dict[str, dict[str, str]] = engine.Logins(*engine.containers(NOW), "program").results()
    return found


def test_every_container_of_the_service_logs_in_anew(paper: Engine, programs: Programs) -> None:
    said = json.dumps({"postgres": "FATAL: password authentication failed", "redis": ""})
    programs.answer("docker", "exec airlift-app-blue python -c", out=f"{said}\n")
    programs.answer("docker", "exec airlift-app-green python -c", err="exec failed: no python")
    containers = (raw("app-blue"), raw("app-green"), raw("worker-blue", "paused"))
    assert logged_in(paper, *containers) == {
        "app-blue": {"postgres": "FATAL: password authentication failed", "redis": ""},
        "app-green": {"its services": "exec failed: no python"},
    }


def test_containers_that_would_log_in_alike_do_it_once(
    paper: Engine, programs: Programs, tmp_path: Path
) -> None:
    """They have the same image, address and secrets, as on the disk now."""
    containers = [raw("app-blue"), raw("worker-blue")]
    for one in containers:
        folder = tmp_path / one["Id"]
        folder.mkdir()
        (folder / "database_password").write_text("one")
        one["Mounts"] = [{"Destination": "/run/secrets", "Source": str(folder)}]
        one["Config"]["Env"] = ["DATABASE_URL=postgresql://a@data-1/airlift", "COLOUR=blue"]
    programs.answer("docker", "exec airlift-app-blue", out='{"postgres": ""}')
    programs.answer("docker", "exec airlift-worker-blue", out='{"postgres": "no password"}')
    alike = {"app-blue": {"postgres": ""}, "worker-blue": {"postgres": ""}}
    each = {**alike, "worker-blue": {"postgres": "no password"}}
    assert logged_in(paper, *containers) == alike
    password = tmp_path / "id-worker-blue/database_password"
    password.write_text("two")
    assert logged_in(paper, *containers) == each
    password.write_text("one")
    assert logged_in(paper, *containers) == alike
    containers[1]["Config"]["Env"][0] += "?sslmode=disable"
    assert logged_in(paper, *containers) == each
    containers[1]["Config"]["Env"] = containers[0]["Config"]["Env"]
    containers[1]["Image"] = "sha256:i2"
    assert logged_in(paper, *containers) == each


def test_a_host_knows_its_colours(paper: Engine, programs: Programs) -> None:
    """The edge asks its agent, whatever runs there; another host reads its containers."""
    found = shown(paper, raw("app-blue"), raw("redis"))
    found[0]["colour"] = "blue"
    assert engine.colours({"containers": found}) == {"blue"}
    said = {"installed": True, "active": "green", "standby": None}
    programs.answer("airlift-swap", "show", out=json.dumps(said))
    edge = engine.edge("airlift-swap")
    assert edge == said
    assert engine.colours({"containers": found, "edge": edge}) == {"green"}


def test_an_agent_that_does_not_answer_says_why(programs: Programs) -> None:
    programs.answer("airlift-swap", "show", err="airlift-swap: the journal is damaged\n", code=1)
    assert engine.edge("airlift-swap") == {"msg": "the journal is damaged"}
    assert engine.edge("/no/agent") == {"msg": "there is no /no/agent on this host"}


def test_keys_are_told_by_place_and_no_hash_leaves_the_host(programs: Programs) -> None:
    keys = [
        ["aa", "shop", "file", False, None],
        ["bb", "gone", "file", True, "file"],
        ["cc", "hand", "file", True, "command"],
        ["dd", "old", "file", False, None],
        ["ee", "made", "command", False, None],
    ]
    said = {"version": 2, "lowest_compatible": 1, "keys": keys}
    programs.answer("docker", "exec --user=postgres airlift-postgres psql", out=json.dumps(said))
    found = engine.database("airlift-postgres", "airlift", ["aa", "bb", "cc", "ff"])
    assert (found["version"], found["lowest_compatible"]) == (2, 1)
    assert found["missing"] == [1, 3]
    assert found["revoked"] == [2]
    assert found["unknown"] == ["old"]
    assert not {"aa", "bb", "cc", "dd", "ee"} & set(json.dumps(found).split('"'))


def test_a_database_that_does_not_answer_says_why(programs: Programs) -> None:
    programs.answer("docker", "exec", err="FATAL:  the database system is starting up", code=2)
    found = engine.database("airlift-postgres", "airlift", [])
    assert found == {"error": "FATAL: the database system is starting up"}


# ---------------------------------------------------------------- firewall rules
NAT = """-P PREROUTING ACCEPT
-A DOCKER ! -i airlift0 -p tcp -m tcp --dport 8001 -j DNAT --to-destination 198.18.240.2:8000
-A POSTROUTING -s 198.18.240.0/24 ! -o airlift0 -j MASQUERADE
"""
NFT = """table ip nat {
	chain DOCKER {
		iifname != "airlift0" tcp dport 8003 counter dnat to 198.18.240.3:8003
	}
}
"""
FORWARD = "-P FORWARD DROP\n-A FORWARD -o airlift0 -j DOCKER\n"


def test_the_engines_rules_are_looked_for_port_by_port(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.answer("iptables", "-t nat -S", out=NAT)
    programs.answer("iptables", "-S FORWARD", out=FORWARD)
    programs.answer("nft", "--stateless list ruleset", out=NFT)
    assert rules.engine_rules([8001, 8003]) == {"missing": [], "blocked": False}
    # `nft flush ruleset`
    programs.answer("iptables", "-t nat -S", out="-P PREROUTING ACCEPT\n")
    programs.answer("iptables", "-S FORWARD", out="-P FORWARD ACCEPT\n")
    programs.answer("nft", "--stateless list ruleset", out="")
    assert rules.engine_rules([8001, 8003])["missing"] == [8001, 8003]
    # `iptables -F`
    programs.answer("iptables", "-t nat -S", out=NAT)
    programs.answer("iptables", "-S FORWARD", out="-P FORWARD DROP\n")
    assert rules.engine_rules([8001]) == {"missing": [], "blocked": True}
    # An engine configured to make no rules.
    monkeypatch.setattr(rules, "DAEMON", tmp_path / "daemon.json")
    rules.DAEMON.write_text('{"iptables": false}')
    assert rules.engine_rules([8001, 8003]) == {"missing": [], "blocked": False}


def test_what_a_service_set_aside_is_found(tmp_path: Path) -> None:
    (tmp_path / "damaged-1").mkdir()
    (tmp_path / "appendonlydir").mkdir()
    assert rules.set_aside(str(tmp_path)) == [str(tmp_path / "damaged-1")]
    assert rules.set_aside("") == []


def test_a_host_without_either_program_is_not_judged(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert programs
    monkeypatch.setattr(rules, "path", lambda: str(programs.folder))
    assert rules.engine_rules([8001]) == {"missing": [], "blocked": False}


def test_our_table_is_compared_with_what_was_confirmed(programs: Programs, tmp_path: Path) -> None:
    """The role firewall leaves this stamp."""
    table = plugin("firewall/library/nft_table.py")
    path = tmp_path / "firewall.nft"
    path.write_text("table inet airlift {}\n")
    list_table = "--stateless list table inet airlift"
    programs.answer("nft", list_table, out="table inet airlift {\n}\n")

    class Module:
        params = {"family": "inet", "table": "airlift", "path": str(path)}  # noqa: RUF012

        @staticmethod
        def run_command(argv: list[str]) -> tuple[int, str, str]:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr

    def look() -> str:
        return str(rules.our_table("inet", "airlift", path))

    assert look() == "unconfirmed"
    path.with_suffix(".confirmed").write_text(table.Table(Module()).fingerprint())
    assert look() == ""
    programs.answer("nft", list_table, out="table inet airlift {\n\tchain x {\n\t}\n}\n")
    assert look() == "different"
    programs.answer("nft", list_table, err="No such file or directory", code=1)
    assert look() == "missing"


def test_forwarding_is_read_from_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "FORWARD", tmp_path / "ip_forward")
    for text, wanted in (("0\n", False), ("1\n", True)):
        rules.FORWARD.write_text(text)
        assert rules.forwarding() is wanted


def test_paths_of_one_file_system_count_once(tmp_path: Path) -> None:
    (one,) = rules.disks([str(tmp_path), str(tmp_path / "not/there")])
    assert 0 <= one["percent"] <= 100


# ---------------------------------------------------------------- queries
class Answers(BaseHTTPRequestHandler):
    """Handler for the answers of a host's services."""

    down = ""

    def do_GET(self) -> None:
        """Answer by path."""
        ready = {"status": "unready", "checks": {"postgres": "down"}, "release": "1.0.0"}
        target = {"health": "down", "scrapeUrl": "", "lastError": "timeout"}
        labels = {"job": "app", "host": "app-1", "instance": "app-1:8001"}
        base = f"http://{self.headers['Host']}"
        active = [
            {**target, "labels": labels, "scrapeUrl": f"{base}/late"},
            {**target, "labels": labels, "scrapeUrl": f"{base}/metrics"},
            {**target, "labels": labels, "health": "up"},
        ]
        known = {
            "/ready": (503, json.dumps(ready)),
            "/metrics": (200, '# HELP pg_up x\npg_up{server="a"} 0\nother 1\n'),
            "/targets": (200, json.dumps({"data": {"activeTargets": active}})),
        }
        status, body = known.get(self.path, (500, ""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Discard the message."""


@pytest.fixture
def base() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_everything_is_asked_at_once(base: str) -> None:
    found = asks.answers(
        [
            {"name": "app", "kind": "ready", "url": f"{base}/ready"},
            {"name": "nobody", "kind": "ready", "url": "http://127.0.0.1:1/ready"},
            {"name": "exporter", "kind": "gauge", "gauge": "pg_up", "url": f"{base}/metrics"},
            {"name": "other", "kind": "gauge", "gauge": "redis_up", "url": f"{base}/metrics"},
            {"name": "targets", "kind": "targets", "url": f"{base}/targets"},
            {"name": "tls", "kind": "ready", "url": "https://127.0.0.1:1/", "ca": "/not/there"},
        ],
        {},
    )
    assert (found["app"]["status"], found["app"]["release"]) == (503, "1.0.0")
    assert found["app"]["checks"] == {"postgres": "down"}
    assert "refused" in found["nobody"]["error"]
    assert found["exporter"] == {"value": 0.0, "error": ""}
    assert "it shows no redis_up" in found["other"]["error"]
    # The second target answers now, even if the last scrape failed.
    assert [one["error"] for one in found["targets"]["down"]] == ["timeout"]
    assert found["tls"]["error"] == "/not/there is not on this host"


@pytest.fixture
def apart() -> Iterator[int]:
    """Start a process with its own network, like a container."""
    command = ["unshare", "--net", "sleep", "60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 10
        mine = Path("/proc/self/ns/net").readlink()
        try:
            while Path(f"/proc/{process.pid}/ns/net").readlink() == mine:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.skip("a network namespace cannot be made here")
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


def test_a_flow_is_tried_from_where_it_is_used(base: str, apart: int) -> None:
    one = {"kind": "ready", "url": f"{base}/ready"}
    found = asks.answers(
        [{**one, "name": "host"}, {**one, "name": "container", "within": "airlift-edge"}],
        {"airlift-edge": apart},
    )
    assert found["host"]["status"] == 503
    assert found["container"]["status"] == 0
    assert "unreachable" in found["container"]["error"].lower()
    # If the container is gone meanwhile, the host asks.
    gone: Callable[..., Any] = asks.answers
    assert gone([{**one, "name": "x", "within": "y"}], {"y": 2**22 + 1})["x"]["status"] == 503
