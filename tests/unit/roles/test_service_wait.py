"""The wait for a container ends as soon as it cannot stay up, tested with a real engine."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

pytestmark = [pytest.mark.docker, pytest.mark.slow]
module = plugin("container/module_utils/container_wait.py")
#: Any image with a shell works.
IMAGE = "airlift/redis:debian"

Start = Callable[..., str]


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a container as the role does: restarted by the engine, with a health check."""
    if subprocess.run(
        ["docker", "image", "inspect", IMAGE], capture_output=True, check=False
    ).returncode:
        pytest.skip(f"no image {IMAGE}; make images")
    names = []

    def run(script: str, health: str = "true") -> str:
        names.append(f"probe-{uuid.uuid4().hex[:8]}")
        options = [
            "--detach",
            "--network",
            "none",
            "--restart",
            "unless-stopped",
            "--name",
            names[-1],
        ]
        options += ["--health-cmd", health, "--health-interval", "1s", "--entrypoint", "sh"]
        docker("run", *options, IMAGE, "-c", script)
        return names[-1]

    yield run
    for name in names:
        docker("rm", "--force", name)


def wait(container: str, seconds: int = 120, **options: Any) -> tuple[str, bool]:
    given = {"container": container, "healthy": True, "url": "", "status": [200], "ca": ""}
    found: tuple[str, bool] = module.wait({**given, "seconds": seconds, **options})
    return found


def test_one_that_becomes_healthy(start: Start) -> None:
    assert wait(start("sleep 600")) == ("", False)


def test_one_that_ends_again_and_again_is_given_up(start: Start) -> None:
    """The wait ends early, and reports the error instead of later log lines."""
    script = "echo '# Bad file format reading the append only file'; echo bye; exit 1"
    problem, _ = wait(start(script), seconds=600)
    assert problem == (
        "it does not stay up, restarted 3 times: # Bad file format reading the append only file"
    )


def test_one_in_a_long_loop_is_started_again_first(start: Start) -> None:
    """Its dependency is available now, but the engine would wait up to a minute."""
    name = start("test -e /tmp/mended && exec sleep 600; echo cannot find it; exit 1")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if docker("inspect", "-f", "{{.State.Restarting}} {{.RestartCount}}", name) >= "true 5":
            break
        time.sleep(0.05)
    subprocess.run(["docker", "cp", "/dev/null", f"{name}:/tmp/mended"], check=True)
    assert wait(name) == ("", True)


def test_one_that_was_stopped_is_told_at_once(start: Start) -> None:
    name = start("echo no room left; exec sleep 600")
    docker("stop", "--time", "0", name)
    problem, _ = wait(name, seconds=600)
    assert problem == "it is exited (code 137): no room left"


def test_one_that_is_paused_is_told_at_once(start: Start) -> None:
    name = start("exec sleep 600")
    docker("pause", name)
    problem, _ = wait(name, seconds=600)
    docker("unpause", name)
    assert problem.startswith("it is paused")


def test_one_that_stays_unhealthy(start: Start) -> None:
    name = start("echo still loading; exec sleep 600", health="echo PONG is missing; exit 1")
    problem, _ = wait(name, seconds=3)
    assert "(PONG is missing), after 3 s: still loading" in problem


def test_no_such_container_is_told_at_once() -> None:
    problem, _ = wait("probe-nowhere", seconds=600)
    assert "No such container: probe-nowhere" in problem


def test_healthy_but_another_answer(start: Start) -> None:
    url = "http://127.0.0.1:1/"
    problem, _ = wait(start("echo up; exec sleep 600"), seconds=2, url=url)
    assert problem.startswith(f"{url} does not answer (")
    assert problem.endswith("after 2 s: up")
