"""The host, the stranger beside it, and running the playbooks as an operator would."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[3]
SCENARIO = ROOT / "molecule/default"
SSH = ROOT / ".cache/lab/mol/ssh_config"
ADDRESS = "172.26.2.10"
Run = Callable[..., subprocess.CompletedProcess[str]]


def connect(name: str) -> testinfra.host.Host:
    return testinfra.get_host(f"ssh://{name}?ssh_config={SSH}", sudo=True)


@pytest.fixture(scope="session")
def host() -> testinfra.host.Host:
    return connect("site-1")


@pytest.fixture(scope="session")
def stranger() -> testinfra.host.Host:
    return connect("stranger")


@pytest.fixture(scope="session")
def playbook() -> Run:
    """Run a playbook on the scenario's site."""

    # Molecule's own runs have another output, see molecule.yml.
    operators = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "airlift"}

    def run(path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ansible-playbook", f"--inventory={SCENARIO}/inventory", path, *arguments],
            cwd=ROOT,
            env={**os.environ, **operators, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def converge(playbook: Run) -> Iterator[Run]:
    """Converge one role with other settings, and put the scenario's own back afterwards.

    There is nothing to put back after a run that changed nothing, as its test has to show, or when
    the last run of a role had the scenario's own settings.
    """
    path, tags = str(SCENARIO / "converge.yml"), set[str]()

    def run(tag: str, *arguments: str, changes: bool = True) -> subprocess.CompletedProcess[str]:
        if changes:
            (tags.add if arguments else tags.discard)(tag)
        return playbook(path, "--tags", tag, *arguments)

    yield run
    if tags:
        restored = playbook(path, "--tags", ",".join(tags))
        assert restored.returncode == 0, restored.stdout


def opens(machine: testinfra.host.Host, address: str, port: int) -> bool:
    """Say whether a machine can open a connection."""
    command = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'"
    return bool(machine.run(command).rc == 0)
