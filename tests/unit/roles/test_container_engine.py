"""The look at a host's engine, with programs on paper: what it must not hide, and a silent one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import ROLES, ROOT

pytestmark = pytest.mark.slow

RUNNING: dict[str, Any] = {"ServerVersion": "26.1.5", "Driver": "overlay2", "DriverStatus": None}
RUNNING |= {"DockerRootDir": "/var/lib/docker", "Containers": 3}
# As engine 26.1's client describes a daemon that is down, and then ends with 0.
DOWN: dict[str, Any] = {"ServerVersion": "", "Driver": "", "DockerRootDir": "", "Containers": 0}
DOWN |= {"ServerErrors": ["Cannot connect to the Docker daemon"], "DriverStatus": None}

DOCKER = """
here=$(dirname "$0")
[ -e "$here/started" ] && exec cat "$here/after.json"
cat "$here/before.json"
"""
SYSTEMCTL = """
here=$(dirname "$0")
echo "$@" >> "$here/calls"
case "$*" in
  *show*) printf 'LoadState=loaded\\nActiveState=inactive\\nUnitFileState=enabled\\n' ;;
  *start*) touch "$here/started" ;;
esac
"""


class Host:
    """A host on paper."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program("dockerd", "echo Docker version 26.1.5, build 1")
        self.program("docker", DOCKER)
        self.program("systemctl", SYSTEMCTL)

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def look(
        self, before: dict[str, Any], after: dict[str, Any], *options: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the tasks of look.yml, up to what they refuse."""
        (self.folder / "before.json").write_text(json.dumps(before))
        (self.folder / "after.json").write_text(json.dumps(after))
        tasks = (ROLES / "container_engine/tasks/look.yml").read_text()
        role = self.folder / "roles/container_engine"
        (role / "tasks").mkdir(parents=True)
        file = self.folder / "daemon.json"
        (role / "tasks/main.yml").write_text(tasks.replace("/etc/docker/daemon.json", str(file)))
        for name in ("defaults", "vars", "tasks/ask.yml"):
            (role / name).symlink_to(ROLES / "container_engine" / name)
        play = self.folder / "play.yml"
        play.write_text("[{hosts: localhost, gather_facts: false, roles: [container_engine]}]")
        program = Path(sys.executable).with_name("ansible-playbook")
        environment = os.environ | {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(role.parent),
            "ANSIBLE_FILTER_PLUGINS": str(ROLES / "site/filter_plugins"),
        }
        return subprocess.run(
            [
                *[str(program), "-i", "localhost,", "-c", "local", str(play), *options],
                *["-e", "site_container_subnet=172.30.0.0/16"],
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_stopped_engine_is_started_to_be_asked(host: Host) -> None:
    """Its containers would vanish as those of a running one do."""
    store = host.folder / "daemon.json"
    store.write_text("{}")
    done = host.look(DOWN, RUNNING, "-e", "container_engine_image_store=containerd")
    assert done.returncode != 0
    assert "3 containers" in done.stdout
    assert "start docker.service" in (host.folder / "calls").read_text()


def test_an_engine_that_never_ran_starts(host: Host) -> None:
    """Its packages were installed, then the run was killed."""
    (host.folder / "daemon.json").write_text("{}")
    done = host.look(DOWN, {**RUNNING, "Containers": 0}, "-e", "container_engine_data_dir=/data")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("configured", [True, False])
def test_an_engine_that_does_not_start(configured: bool, host: Host) -> None:
    if configured:
        (host.folder / "daemon.json").write_text("{}")
    done = host.look(DOWN, DOWN)
    assert (done.returncode == 0) is not configured, done.stdout
    assert ("journalctl -u docker.service" in done.stdout) is configured


def test_a_rehearsal_starts_nothing(host: Host) -> None:
    assert host.look(DOWN, RUNNING, "--check").returncode == 0
    assert not (host.folder / "calls").exists()


def test_containers_in_another_directory_do_not_vanish(host: Host) -> None:
    done = host.look({**RUNNING, "DockerRootDir": "/srv/docker"}, RUNNING)
    assert done.returncode != 0
    assert "container_engine_data_dir to" in " ".join(done.stdout.split())


def test_a_linked_directory_is_the_same(host: Host) -> None:
    (host.folder / "data").mkdir()
    (host.folder / "link").symlink_to("data")
    real = {**RUNNING, "DockerRootDir": f"{host.folder}/data/100000.100000"}
    done = host.look(real, real, "-e", f"container_engine_data_dir={host.folder}/link")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("answer", "known"), [(RUNNING, True), (DOWN, False), (None, False)])
def test_only_an_answer_is_kept(answer: dict[str, Any] | None, known: bool, tmp_path: Path) -> None:
    play = tmp_path / "play.yml"
    said = {"site_engine": {"rc": 0, "stdout": json.dumps(answer)}} if answer else {}
    play.write_text(
        f"[{{hosts: localhost, gather_facts: false, vars_files: [{ROLES}/site/vars/main.yml],"
        " tasks: [{ansible.builtin.debug: {msg: 'known {{ site_engine_known }}'}}]}]"
    )
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", "localhost,", "-c", "local", play, "-e", json.dumps(said)],
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"known {known}" in done.stdout, done.stdout + done.stderr
