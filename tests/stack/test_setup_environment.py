"""scripts/setup-environment.sh: one exit code for each thing that can be wrong, and each is met."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack.stackkit import Stack
from tests.unit.app.appkit import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.slow]
long = pytest.mark.skipif(not os.environ.get("AIRLIFT_SOAK"), reason="make soak-stack")


NAME = ("airlift-stack-env", "198.19.244")


class Clone(Stack):
    """A copy of this tree's files, in which the script may write, with a stack of its own."""

    def __init__(self, root: Path, name: str, network: str) -> None:
        super().__init__(name, root / "stack/sources", network)
        del self.env["SOURCES_DIR"]
        self.root = root

    def setup(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "scripts/setup-environment.sh"), *arguments],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / ".cache/stack/report.json").read_text())
        return found

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def tree(images: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree") / "airlift"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    # Images are built from what git knows.
    who = ("-c", "user.name=Tests", "-c", "user.email=tests@airlift.example")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "A copy")):
        subprocess.run(["git", "-C", str(root), *words], check=True)
    (root / ".venv").symlink_to(ROOT / ".venv")
    if (fetched := ROOT / ".cache/compose").is_dir():
        shutil.copytree(fetched, root / ".cache/compose")
    for folder in (root, *root.parents):
        if folder.is_relative_to(root.parents[1]):
            folder.chmod(0o755)
    return root


@pytest.fixture
def clone(tree: Path, tmp_path: Path) -> Iterator[Clone]:
    root = tmp_path / "airlift"
    shutil.copytree(tree, root, symlinks=True)
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    # An engine whose client dies in the middle may count an endpoint on a network for ever (20.10
    # did): the network of the tests that kill is theirs alone.
    killed = "killed" in tmp_path.name
    made = Clone(root, *(("airlift-stack-kill", "198.19.243") if killed else NAME))
    yield made
    if made.left():
        made.compose("--profile", "*", "down", "--volumes", "--timeout", "2", check=False)


def test_help_lists_every_exit_code(clone: Clone) -> None:
    done = clone.setup("--help")
    assert done.returncode == 0
    listed = set(re.findall(r"(?:^ *|  )(\d+) [a-z]", done.stdout, re.MULTILINE))
    script = (ROOT / "scripts/setup-environment.sh").read_text()
    used = set(re.findall(r"\b(?:exit|bad|step) (\d+)\b", script))
    assert used - {"1"} <= listed
    assert {"0", "2", "3", "14"} <= listed


@pytest.mark.parametrize(
    "words", [["--wrong"], ["--source", "x"], ["--source"], ["--volumes"]], ids=" ".join
)
def test_2_a_wrong_command_line(clone: Clone, words: list[str]) -> None:
    done = clone.setup(*words)
    assert done.returncode == 2
    assert "fix: " in done.stderr


def test_3_no_docker(clone: Clone) -> None:
    done = clone.setup(AIRLIFT_DOCKER="/no/such/docker")
    assert done.returncode == 3
    assert "docker.io" in done.stdout


def test_3_an_engine_that_is_too_old(clone: Clone, tmp_path: Path) -> None:
    old = tmp_path / "docker"
    old.write_text("#!/bin/sh\necho 18.09.1\n")
    old.chmod(0o755)
    done = clone.setup(AIRLIFT_DOCKER=str(old))
    assert done.returncode == 3
    assert "Docker 18.09.1 is older than 20.10" in done.stdout


def test_4_an_engine_that_does_not_answer(clone: Clone) -> None:
    done = clone.setup(DOCKER_HOST="unix:///no/such/socket")
    assert done.returncode == 4
    assert "does not answer" in done.stdout


def test_5_a_full_disk(clone: Clone) -> None:
    done = clone.setup("--check", STACK_MIN_DISK_MB="99999999")
    assert done.returncode == 5
    assert re.search(r"\d+ MB free in \S+, 99999999 are needed", done.stdout)


def test_6_too_little_memory(clone: Clone) -> None:
    assert clone.setup("--check", STACK_MIN_MEMORY_MB="99999999").returncode == 6


def test_7_a_port_is_taken_and_every_problem_is_told_at_once(clone: Clone) -> None:
    with socket.create_server(("127.0.0.1", clone.ports["PROMETHEUS_PORT"])):
        done = clone.setup("--check", "--json")
        assert done.returncode == 7
        both = clone.setup("--check", STACK_MIN_MEMORY_MB="99999999")
        assert both.returncode == 6, "the first kind decides"
    failed = [one for one in json.loads(done.stdout)["steps"] if one["status"] == "failed"]
    assert [one["name"] for one in failed] == [f"port {clone.ports['PROMETHEUS_PORT']}"]
    assert "set PROMETHEUS_PORT in .env" in failed[0]["fix"]
    assert f"port {clone.ports['PROMETHEUS_PORT']}" in both.stdout


def test_the_port_of_grafana_may_be_taken_where_it_does_not_run(clone: Clone) -> None:
    with socket.create_server(("127.0.0.1", clone.ports["GRAFANA_PORT"])):
        assert clone.setup("--check", "--source", "debian").returncode == 0
        assert clone.setup("--check", "--source", "registry").returncode in {7, 8}


def test_8_registries_that_do_not_answer(clone: Clone) -> None:
    for host in ("docker.io", "quay.io"):
        clone.edit("docker-compose.yml", f"_IMAGE:-{host}/", "_IMAGE:-registry.invalid/")
    done = clone.setup("--source", "registry", "--check")
    assert done.returncode == 8
    assert "no answer from registry.invalid" in done.stdout
    assert "no address for registry.invalid" in done.stdout
    # Without them images are built from packages, and that is said.
    done = clone.setup("--check")
    assert done.returncode == 0
    assert "Grafana, which Debian does not have, is left out" in done.stdout


def test_9_a_folder_that_cannot_be_written(clone: Clone) -> None:
    shutil.rmtree(clone.root / ".cache/stack", ignore_errors=True)
    (clone.root / ".cache/stack").write_text("in the way")
    done = clone.setup()
    assert done.returncode == 9
    assert ".cache/stack cannot be written" in done.stdout


def test_10_images_that_cannot_be_built(clone: Clone) -> None:
    (clone.root / ".venv").unlink()
    python = clone.root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho no mirror answers >&2; exit 1\n")
    python.chmod(0o755)
    done = clone.setup("--source", "debian")
    assert done.returncode == 10
    assert "no mirror answers" in done.stdout
    assert clone.report()["exit_code"] == 10


def test_14_another_run_is_in_progress(clone: Clone) -> None:
    (clone.root / ".cache/stack").mkdir(exist_ok=True)
    with (clone.root / ".cache/stack/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = clone.setup("--source", "debian", STACK_LOCK_SECONDS="1")
        assert done.returncode == 14


def test_a_check_changes_nothing(clone: Clone) -> None:
    def files() -> set[Path]:
        return {path for path in clone.root.rglob("*") if ".venv" not in path.parts}

    before = files()
    assert clone.setup("--check").returncode == 0
    assert files() == before
    assert clone.left() == []


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colour_is_for_terminals_that_want_it(clone: Clone, no_color: str) -> None:
    ours, theirs = pty.openpty()
    command = [str(clone.root / "scripts/setup-environment.sh"), "--check"]
    env = {**clone.env, "NO_COLOR": no_color}
    with subprocess.Popen(command, env=env, stdout=theirs, stderr=theirs):
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                said += part
    os.close(ours)
    assert (b"\x1b[32mok" in said) == (not no_color)
    assert b"\x1b[" not in clone.setup("--check").stdout.encode()


@long
def test_0_twice_then_down(clone: Clone) -> None:
    first = clone.setup()
    assert first.returncode == 0, first.stdout + first.stderr
    steps = {one["name"]: one["status"] for one in clone.report()["steps"]}
    assert set(steps.values()) <= {"ok", "warning"}
    assert {"images", "migrations", "health", "API", "nginx", "prometheus"} <= set(steps)
    before = {name: clone.container(name) for name in ("postgres", "app", "nginx", "prometheus")}
    (clone.root / ".env").write_text((clone.root / ".env").read_text() + "# mine\n")
    assert clone.request("POST", "/items", {"name": "kept"})[0] == 201
    assert clone.setup().returncode == 0
    assert {name: clone.container(name) for name in before} == before
    assert (clone.root / ".env").read_text().endswith("# mine\n"), "an existing file is kept"
    assert clone.setup("--down").returncode == 0
    assert {name for name in clone.left() if name.endswith("-1")} == set()
    assert clone.setup().returncode == 0
    assert "kept" in json.dumps(clone.request("GET", "/items")[2])
    assert clone.setup("--down", "--volumes").returncode == 0
    assert clone.left() == []


@long
def test_11_a_service_that_does_not_start(clone: Clone) -> None:
    clone.edit("stack/postgres-start.sh", "set -eu", "exit 7")
    done = clone.setup(STACK_WAIT_SECONDS="30")
    assert done.returncode == 11
    assert "data services" in done.stdout


@long
def test_12_migrations_that_fail(clone: Clone) -> None:
    clone.edit("stack/rendered/postgres/accounts.json", "airlift_owner", "airlift_other")
    clone.edit("stack/accounts.py", '"airlift_owner"', '"airlift_other"')
    done = clone.setup()
    assert done.returncode == 12
    assert "migrations" in done.stdout


@long
def test_13_a_service_that_runs_and_does_not_answer_as_it_should(clone: Clone) -> None:
    clone.edit("stack/rendered/nginx/conf.d/site.conf", "proxy_pass http://app;", "return 404;")
    done = clone.setup()
    assert done.returncode == 13
    assert "API" in done.stdout


@long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_half_way_the_same_command_finishes(clone: Clone, number: int) -> None:
    command = [str(clone.root / "scripts/setup-environment.sh")]
    with subprocess.Popen(
        command, env=clone.env, stdout=subprocess.DEVNULL, start_new_session=True
    ) as running:
        clone.eventually(lambda: any("postgres" in name for name in clone.left()), seconds=120)
        time.sleep(1)
        os.killpg(running.pid, number)
    assert running.returncode == (130 if number == signal.SIGINT else -number)
    done = clone.setup()
    assert done.returncode == 0, done.stdout + done.stderr
    assert clone.request("GET", "/health/ready")[0] == 200
