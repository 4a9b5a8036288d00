"""scripts/setup-environment.sh has one exit code per fault, and each fault is tested."""

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
from pathlib import Path

import pytest

from tests.stack.stackkit import Clone
from tests.unit.app.appkit import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def test_help_lists_every_exit_code(shared: Clone) -> None:
    done = shared.setup("--help")
    assert done.returncode == 0
    listed = set(re.findall(r"(?:^ *|  )(\d+) [a-z]", done.stdout, re.MULTILINE))
    scripts = [ROOT / f"scripts/setup-{name}.sh" for name in ("environment", "checks")]
    used = set(re.findall(r"\b(?:exit|bad|step) (\d+)\b", "".join(map(Path.read_text, scripts))))
    assert used - {"1"} <= listed
    assert {"0", "2", "3", "14"} <= listed


@pytest.mark.parametrize(
    "words", [["--wrong"], ["--source", "x"], ["--source"], ["--volumes"]], ids=" ".join
)
def test_2_a_wrong_command_line(shared: Clone, words: list[str]) -> None:
    done = shared.setup(*words)
    assert done.returncode == 2
    assert "fix: " in done.stderr


def test_3_no_docker(shared: Clone) -> None:
    done = shared.setup(AIRLIFT_DOCKER="/no/such/docker")
    assert done.returncode == 3
    assert "docker.io" in done.stdout


def test_3_an_engine_that_is_too_old(shared: Clone, tmp_path: Path) -> None:
    old = tmp_path / "docker"
    old.write_text("#!/bin/sh\necho 18.09.1\n")
    old.chmod(0o755)
    done = shared.setup(AIRLIFT_DOCKER=str(old))
    assert done.returncode == 3
    assert "Docker 18.09.1 is older than 20.10" in done.stdout


@pytest.mark.long
def test_3_compose_cannot_be_fetched(clone: Clone, tmp_path: Path) -> None:
    """The fault is found before anything is built."""
    shutil.rmtree(clone.root / ".cache/compose")
    if "fetched on the first use" not in clone.setup("--check").stdout:
        pytest.skip("this machine has one installed")
    (tmp_path / "mmdebstrap").write_text("#!/bin/sh\necho E: no mirror answers >&2; exit 1\n")
    (tmp_path / "mmdebstrap").chmod(0o755)
    done = clone.setup(PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 3
    assert "docker-compose cannot be fetched" in done.stdout
    assert "no mirror answers" in (clone.root / ".cache/stack/setup.log").read_text()


def test_4_an_engine_that_does_not_answer(shared: Clone) -> None:
    done = shared.setup(DOCKER_HOST="unix:///no/such/socket")
    assert done.returncode == 4
    assert "does not answer" in done.stdout


def test_5_too_little_disk(shared: Clone) -> None:
    done = shared.setup("--check", STACK_MIN_DISK_MB="99999999")
    assert done.returncode == 5
    assert re.search(r"\d+ MB free in \S+, 99999999 are needed", done.stdout)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
@pytest.mark.parametrize(("least", "code"), [("4000", 5), ("0", 9)], ids=["checked", "unchecked"])
def test_5_and_9_a_disk_that_is_full_to_the_last_byte(
    clone: Clone, tmp_path: Path, least: str, code: int
) -> None:
    """In a mount namespace of its own, which ends with it; the second as if it filled up later."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = """
mount -t tmpfs -o size=64m disk "$1"
cp -a "$2" "$1/airlift"
dd if=/dev/zero of="$1/fill" bs=1M 2> /dev/null || true
exec "$1/airlift/scripts/setup-environment.sh"
"""
    # Large files that the script does not need up to this step.
    for name in ("app/models", ".git", ".cache"):
        shutil.rmtree(clone.root / name)
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-ec", script, "bash", str(disk), str(clone.root)],
        env={**clone.env, "STACK_MIN_DISK_MB": least},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    said = "0 MB free in ., 4000 are needed" if code == 5 else ".cache/stack cannot be written"
    assert said in done.stdout
    assert clone.left() == []


def test_6_too_little_memory(shared: Clone) -> None:
    assert shared.setup("--check", STACK_MIN_MEMORY_MB="99999999").returncode == 6


def test_7_a_port_is_taken_and_every_problem_is_told_at_once(shared: Clone) -> None:
    with socket.create_server(("127.0.0.1", shared.ports["PROMETHEUS_PORT"])):
        done = shared.setup("--check", "--json")
        assert done.returncode == 7
        both = shared.setup("--check", STACK_MIN_MEMORY_MB="99999999")
        assert both.returncode == 6, "the first kind decides"
    failed = [one for one in json.loads(done.stdout)["steps"] if one["status"] == "failed"]
    assert [one["name"] for one in failed] == [f"port {shared.ports['PROMETHEUS_PORT']}"]
    assert "set PROMETHEUS_PORT in .env" in failed[0]["fix"]
    assert f"port {shared.ports['PROMETHEUS_PORT']}" in both.stdout


@pytest.mark.long
def test_a_setting_in_quotes_is_read_as_compose_reads_it(clone: Clone) -> None:
    taken = clone.ports["PORT"]
    (clone.root / ".env").write_text(f"PORT=\"{taken}\"\nHTTP_PORT='{clone.ports['HTTP_PORT']}'\n")
    with socket.create_server(("127.0.0.1", taken)):
        done = clone.setup("--check", PORT="", HTTP_PORT="")
    assert done.returncode == 7
    assert f"another program listens on 127.0.0.1:{taken}" in done.stdout
    assert f"port {clone.ports['HTTP_PORT']} " in done.stdout


@pytest.mark.long
def test_the_port_of_grafana_may_be_taken_where_it_does_not_run(shared: Clone) -> None:
    with socket.create_server(("127.0.0.1", shared.ports["GRAFANA_PORT"])):
        assert shared.setup("--check", "--source", "debian").returncode == 0
        assert shared.setup("--check", "--source", "registry").returncode in {7, 8}


@pytest.mark.long
def test_8_registries_that_do_not_answer(clone: Clone) -> None:
    for host in ("docker.io", "quay.io"):
        clone.edit("docker-compose.yml", f"_IMAGE:-{host}/", "_IMAGE:-registry.invalid/")
    done = clone.setup("--source", "registry", "--check")
    assert done.returncode == 8
    assert "no answer from registry.invalid (no address in DNS)" in done.stdout
    # Without them images are built from packages, and that is said.
    done = clone.setup("--check")
    assert done.returncode == 0
    assert "Grafana, which Debian does not have, is omitted" in done.stdout


def without_network(clone: Clone) -> subprocess.CompletedProcess[str]:
    """Check in a network namespace of its own: the engine is reached by its socket alone."""
    return subprocess.run(
        ["unshare", "--net", str(clone.root / "scripts/setup-environment.sh"), "--check"],
        env=clone.env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")
def test_8_no_network_at_all(clone: Clone) -> None:
    done = without_network(clone)
    assert done.returncode == 0, "the images of the last run are enough"
    assert "those of the last run still exist" in done.stdout
    (clone.root / ".cache/stack/images.env").unlink()
    done = without_network(clone)
    assert done.returncode == 8
    assert "nor from this machine's Debian mirror" in done.stdout
    assert "apt-get update" in done.stdout


@pytest.mark.long
def test_the_example_password_of_grafana_is_a_warning_where_it_runs(shared: Clone) -> None:
    def warned(*arguments: str, **env: str) -> bool:
        report = json.loads(shared.setup("--check", "--json", *arguments, **env).stdout)
        return "Grafana's password" in {
            one["name"] for one in report["steps"] if one["status"] == "warning"
        }

    assert warned("--source", "registry")
    assert not warned("--source", "registry", GF_SECURITY_ADMIN_PASSWORD="another")
    assert not warned("--source", "registry", COMPOSE_PROFILES="logs")
    assert not warned("--source", "debian")


def test_9_a_folder_that_cannot_be_written(clone: Clone) -> None:
    shutil.rmtree(clone.root / ".cache/stack", ignore_errors=True)
    (clone.root / ".cache/stack").write_text("in the way")
    done = clone.setup()
    assert done.returncode == 9
    assert ".cache/stack cannot be written" in done.stdout


@pytest.mark.long
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

    # The script does not download Compose either, on a machine without it.
    shutil.rmtree(clone.root / ".cache")
    before = files()
    assert clone.setup("--check").returncode == 0
    assert files() == before
    assert clone.left() == []


@pytest.mark.long
@pytest.mark.parametrize("no_color", ["", "1"])
def test_colour_is_for_terminals_that_want_it(shared: Clone, no_color: str) -> None:
    ours, theirs = pty.openpty()
    command = [str(shared.root / "scripts/setup-environment.sh"), "--check"]
    env = {**shared.env, "NO_COLOR": no_color}
    with subprocess.Popen(command, env=env, stdout=theirs, stderr=theirs):
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                said += part
    os.close(ours)
    assert (b"\x1b[32mok" in said) == (not no_color)
    assert b"\x1b[" not in shared.setup("--check").stdout.encode()


@pytest.mark.long
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


@pytest.mark.long
def test_11_a_service_that_does_not_start(clone: Clone) -> None:
    clone.edit("stack/postgres-start.sh", "set -eu", "exit 7")
    done = clone.setup(STACK_WAIT_SECONDS="30")
    assert done.returncode == 11
    assert "data services" in done.stdout


@pytest.mark.long
def test_12_migrations_that_fail(clone: Clone) -> None:
    clone.edit("stack/rendered/postgres/accounts.json", "airlift_owner", "airlift_other")
    clone.edit("stack/accounts.py", '"airlift_owner"', '"airlift_other"')
    done = clone.setup()
    assert done.returncode == 12
    assert "migrations" in done.stdout


@pytest.mark.long
def test_13_a_service_that_runs_and_does_not_answer_as_it_should(clone: Clone) -> None:
    clone.edit("stack/rendered/nginx/conf.d/site.conf", "proxy_pass http://app;", "return 404;")
    done = clone.setup()
    assert done.returncode == 13
    assert "API" in done.stdout


@pytest.mark.long
def test_13_prometheus_is_healthy_and_does_not_answer_here(clone: Clone) -> None:
    clone.edit("docker-compose.yml", "${PROMETHEUS_PORT:-9090}:9090", "${PROMETHEUS_PORT:-9090}:1")
    done = clone.setup()
    assert done.returncode == 13
    assert "targets that do not answer: Prometheus: " in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_half_way_the_same_command_finishes(clone: Clone, number: int) -> None:
    # Tests that run in the background ignore SIGINT, and the script would inherit that.
    command = ["env", "--default-signal=INT", str(clone.root / "scripts/setup-environment.sh")]
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
