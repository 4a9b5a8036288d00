"""The engine's own firewall rules, with a test engine in its own network namespace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.roles.conftest import ROLES, plugin
from tests.unit.roles.enginekit import IMAGE, require_image

module = plugin("container_engine/module_utils/engine_rules.py")
SHARED = [str(path) for path in sorted(ROLES.glob("*/module_utils"))]

BASE = {
    "nat": [
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "-A POSTROUTING -s 198.18.240.0/24 ! -o airlift0 -j MASQUERADE",
        "-A DOCKER ! -i airlift0 -p tcp --dport 8001 -j DNAT --to-destination 198.18.240.2:8000",
    ],
    "filter": ["-A FORWARD -j DOCKER-USER"],
}


# ---------------------------------------------------------------- expected rules
def test_newer_engines_have_other_chains() -> None:
    found = {"nat": BASE["nat"], "filter": ["-A FORWARD -j DOCKER-FORWARD"]}
    assert module.missing_base(found) == []
    assert len(module.missing_base({"nat": [], "filter": []})) == 2


def test_networks_that_need_no_rule() -> None:
    config = {"IPAM": {"Config": [{"Subnet": "198.18.241.0/24"}, {"Subnet": "fd00::/64"}]}}
    assert module.missing_network(BASE["nat"], config) == [
        "the address under which 198.18.241.0/24 reaches other hosts"
    ]
    assert module.missing_network(BASE["nat"], {**config, "Internal": True}) == []
    off = {"Options": {module.MASQUERADE: "false"}}
    assert module.missing_network(BASE["nat"], {**config, **off}) == []


def test_each_published_port_leads_to_its_container() -> None:
    ports = {
        "8000/tcp": [
            {"HostIp": "", "HostPort": "8001"},
            {"HostIp": "::", "HostPort": "8001"},
        ],
        "9/tcp": None,
    }
    networks = {"airlift": {"IPAddress": "198.18.240.2"}}
    one = {"Name": "/airlift-app", "NetworkSettings": {"Ports": ports, "Networks": networks}}
    assert module.missing_ports(BASE["nat"], one) == []
    networks["airlift"]["IPAddress"] = "198.18.240.3"
    assert module.missing_ports(BASE["nat"], one) == ["port 8001 of airlift-app"]


@pytest.mark.parametrize(
    ("said", "flags", "makes"),
    [
        ("{}", "dockerd\0-H\0fd://", True),
        ('{"iptables": false}', "dockerd", False),
        ("{}", "dockerd\0--iptables=false", False),
        ('{"firewall-backend": "nftables"}', "dockerd", False),
        ("no JSON", "dockerd", True),
    ],
)
def test_an_engine_that_makes_no_rules(said: str, flags: str, makes: bool, tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text(said)
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", *flags.split("\0")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        (tmp_path / "pid").write_text(f"{process.pid}\n")
        found = module.makes_rules(tmp_path / "daemon.json", tmp_path / "pid")
        process.kill()
    assert found is makes


# ---------------------------------------------------------------- a real engine
class Engine:
    """An engine in an isolated network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"DOCKER_HOST": f"unix://{folder}/sock"}
        (folder / "daemon.json").write_text('{"live-restore": true}')
        self.space = subprocess.Popen(["unshare", "-n", "-m", "sleep", "900"])
        self.daemon: subprocess.Popen[bytes] | None = None
        time.sleep(0.5)
        self.inside("ip", "link", "set", "lo", "up")

    def inside(self, *command: str) -> str:
        enter = ["nsenter", "--target", str(self.space.pid), "--net", "--mount"]
        done = subprocess.run(
            [*enter, *command], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        options = [
            "--config-file",
            f"{self.folder}/daemon.json",
            "--data-root",
            f"{self.folder}/data",
        ]
        options += ["--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/pid"]
        enter = ["nsenter", "--target", str(self.space.pid), "--net", "--mount"]
        with (self.folder / "log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [*enter, "dockerd", *options, "--host", f"unix://{self.folder}/sock"],
                stdout=log,
                stderr=log,
            )
        for _ in range(300):
            asked = ["docker", "version"]
            if not subprocess.run(
                asked, env=self.environment, capture_output=True, check=False
            ).returncode:
                return
            time.sleep(0.1)
        pytest.skip("no second engine can run here: " + (self.folder / "log").read_text()[-500:])

    def stop(self) -> None:
        if self.daemon:
            os.kill(int((self.folder / "pid").read_text()), signal.SIGTERM)
            self.daemon.wait(60)

    def missing(self) -> list[str]:
        code = f"""if True:
            import json, ansible.module_utils
            ansible.module_utils.__path__ += {SHARED}
            from ansible.module_utils import engine_rules
            print(json.dumps(engine_rules.missing('airlift')))
        """
        said = self.inside(sys.executable, "-c", code)
        found: list[str] = json.loads(said)
        return found


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    if os.geteuid() or not all(map(shutil.which, ("dockerd", "nft", "iptables-save"))):
        pytest.skip("needs root, dockerd, nft and iptables")
    require_image()
    # The path of a socket must be short.
    folder = Path(f"/tmp/engine-{os.getpid()}")  # noqa: S108
    folder.mkdir()
    made = Engine(folder)
    yield made
    made.inside("sh", "-c", "docker rm --force one >/dev/null 2>&1 || :")
    made.stop()
    made.space.kill()
    made.space.wait()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.docker
@pytest.mark.slow
def test_a_flushed_ruleset_is_noticed_and_a_restart_mends_it(engine: Engine) -> None:
    engine.start()
    assert engine.missing() == []
    with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saved:
        subprocess.run(
            ["docker", "load", "--quiet"], stdin=saved.stdout, env=engine.environment, check=True
        )
    engine.inside("docker", "network", "create", "airlift")
    options = ["--network", "airlift", "--label", "airlift.service=x", "--publish", "8001:8000"]
    engine.inside(
        *["docker", "run", "-d", "--name", "one", *options], "--entrypoint", "sleep", IMAGE, "900"
    )
    assert engine.missing() == []
    engine.inside("nft", "flush", "ruleset")
    gone = engine.missing()
    assert len(gone) == 4, gone
    assert "port 8001 of one" in gone
    started = engine.inside("docker", "inspect", "-f", "{{.State.StartedAt}}", "one")
    engine.stop()
    engine.start()
    assert engine.missing() == []
    # live-restore kept the container running throughout.
    assert engine.inside("docker", "inspect", "-f", "{{.State.StartedAt}}", "one") == started
