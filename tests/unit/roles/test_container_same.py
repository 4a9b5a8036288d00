"""Differences between a container and its data, found with a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin
from tests.unit.roles.enginekit import docker, require_image, settings_in

pytestmark = [pytest.mark.docker, pytest.mark.slow]
engines = plugin("container/module_utils/engine_containers.py")
shape = plugin("container/module_utils/container_shape.py")
action = plugin("container/action_plugins/containers.py")


@pytest.fixture
def wanted(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Return the parameters of a container that uses every option and does not exist yet."""
    require_image()
    settings = settings_in(tmp_path)
    entry = {
        "name": f"same-{uuid.uuid4().hex[:8]}",
        "component": "redis",
        "command": ["sh", "-c", "sleep 600"],
        "user": "999:999",
        "extra_hosts": {"data-1": "192.0.2.1"},
        "mounts": [{"source": "/usr/share", "target": "/share"}],
        "env": {"A": "1"},
        "memory": "64m",
        "healthcheck": {"test": ["CMD", "true"], "interval": "5s", "start_period": "60s"},
        "stop_signal": "SIGKILL",
    }
    one = action.complete(entry, settings)
    yield shape.stays(one, settings, "f-1")
    subprocess.run(["docker", "rm", "--force", shape.name_of(one)], check=False)


def differences(parameters: dict[str, Any]) -> set[str]:
    done = engines.Engine().converge(parameters, check_mode=True)
    before, after = done["diff"]["before"], done["diff"]["after"]
    return {key for key in {*before, *after} if before.get(key) != after.get(key)}


def identity(parameters: dict[str, Any]) -> str:
    return docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", parameters["name"])


def test_made_once_it_is_the_same(wanted: dict[str, Any]) -> None:
    engine = engines.Engine()
    assert engine.converge(wanted, check_mode=False)["changed"]
    first = identity(wanted)
    assert not engine.converge(wanted, check_mode=False)["changed"]
    assert (differences(wanted), identity(wanted)) == (set(), first)


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        ({"env": {"A": "2"}}, {"env"}),
        ({"mounts": []}, {"mounts"}),
        ({"memory": "96m", "memory_swap": "96m"}, {"memory", "memory_swap"}),
        ({"etc_hosts": {}}, {"etc_hosts"}),
        ({"tmpfs": []}, {"tmpfs"}),
        ({"entrypoint": ["bash"]}, {"entrypoint"}),
        ({"stop_signal": "SIGTERM"}, {"stop_signal"}),
        ({"pids_limit": 99}, {"pids_limit"}),
        ({"labels": {"airlift.fingerprint": "f-2"}}, {"labels"}),
    ],
)
def test_each_difference_is_seen_and_a_question_changes_nothing(
    wanted: dict[str, Any], changed: dict[str, Any], seen: set[str]
) -> None:
    engines.Engine().converge(wanted, check_mode=False)
    before = identity(wanted)
    assert differences({**wanted, **changed}) == seen
    assert identity(wanted) == before


def test_one_that_was_stopped_or_removed_is_seen(wanted: dict[str, Any]) -> None:
    engines.Engine().converge(wanted, check_mode=False)
    docker("stop", "--time", "0", wanted["name"])
    assert differences(wanted) == {"running"}
    docker("rm", wanted["name"])
    assert "exists" in differences(wanted)


def test_one_that_the_module_of_the_collection_made_is_the_same(wanted: dict[str, Any]) -> None:
    """Earlier releases installed sites with it: their containers must not be recreated."""
    given = {key: value for key, value in wanted.items() if value is not None}
    program = str(Path(sys.executable).with_name("ansible"))
    command = [program, "-i", "localhost,", "localhost", "-c", "local"]
    command += ["-m", "community.docker.docker_container", "-a", json.dumps(given)]
    done = subprocess.run(
        command,
        env=os.environ | {"ANSIBLE_PYTHON_INTERPRETER": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert differences(wanted) == set()


def test_an_engine_that_is_not_there_is_told(
    wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(engines.EngineError, match="Error"):
        engines.Engine()
