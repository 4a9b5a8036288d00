"""The agent signals the process of Nginx directly, never through the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from swap_agent import nginx
from swap_agent.nginx import Edge
from swap_agent.state import Settings, SwapError

#: Prints when it listens, and when it received the signal to reload.
MASTER = """
import signal, sys
signal.signal(signal.SIGHUP, lambda *_: print("reloaded", flush=True))
print("ready", flush=True)
sys.stdin.read()
"""


class Engine:
    """An engine whose one container has a real process."""

    def __init__(self, *pids: int, policy: str = "always") -> None:
        self.pids = list(pids)
        self.policy = policy
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str, **_: float) -> subprocess.CompletedProcess[str]:
        self.calls.append(arguments)
        said = ""
        if arguments[0] == "inspect":
            pid = self.pids.pop(0) if len(self.pids) > 1 else self.pids[0]
            said = f"{pid} {self.policy}\n"
        return subprocess.CompletedProcess(arguments, 0, said, "")


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(
        Settings(
            root=tmp_path,
            state_file=tmp_path / "state.json",
            files=(),
            container="airlift-edge",
            image="sha256:nginx",
            user="101:101",
            probe_address="127.0.0.1",
            probe_port=1,
        )
    )


@pytest.fixture
def master() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", MASTER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_the_process_is_told_and_the_engine_sends_no_signal(
    edge: Edge, master: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that was signalled through the engine stays down after a reboot."""
    engine = Engine(master.pid)
    monkeypatch.setattr(nginx, "engine", engine)
    edge.hup()
    assert master.stdout is not None
    assert master.stdout.readline() == "reloaded\n"
    assert {call[0] for call in engine.calls} == {"inspect"}


def test_an_edge_of_an_older_release_is_made_to_start_after_a_reboot(
    edge: Edge, master: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(master.pid, policy="unless-stopped")
    monkeypatch.setattr(nginx, "engine", engine)
    edge.hup()
    assert ("update", "--restart", "always", "airlift-edge") in engine.calls


@pytest.mark.parametrize("pids", [(0,), (2**22 + 1,)])
def test_a_container_without_a_process_is_named(
    edge: Edge, pids: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nginx, "engine", Engine(*pids))
    with pytest.raises(SwapError, match="cannot signal airlift-edge: it does not run"):
        edge.hup()


def test_a_process_that_is_no_longer_the_containers_gets_no_signal(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pid may be given to another process between the query and the signal."""
    monkeypatch.setattr(nginx, "engine", Engine(os.getpid(), 0))
    with pytest.raises(SwapError, match="has just ended"):
        edge.hup()
