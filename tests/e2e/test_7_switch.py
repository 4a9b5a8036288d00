"""The swap agent on the real edge: a switch moves the traffic, and no request notices.

The other colour has no container yet, so every request that goes to it must end at the backup.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from scripts.journey import Journey
from tests.e2e.support import address

RUN = "e2e"


def agent(journey: Journey, *words: str, check: bool = True) -> Any:
    """Call the agent on the edge; return its answer, or what it said against it."""
    done = journey.lab.console("edge-1", 'exec airlift-swap "$@"', *words, check=check)
    return json.loads(done.output) if done.code == 0 else done.error


def switch(journey: Journey, colour: str) -> Any:
    manifest = journey.facts.manifest
    release = ["--release", manifest["version"], "--serial", str(manifest["serial"])]
    return agent(journey, "switch", "--run", RUN, "--to", colour, *release)


@dataclass
class Load:
    """What keep-alive clients sent and what failed."""

    sent: int = 0
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def load(journey: Journey, clients: int = 4) -> Iterator[Load]:
    """Keep clients posting over connections that they hold open, one request every 50 ms."""
    found, over = Load(), threading.Event()
    context = ssl.create_default_context(cafile=str(journey.cache / "ca.pem"))
    headers = {
        "X-API-Key": (journey.cache / "api-key").read_text(),
        "Content-Type": "application/json",
    }

    def client() -> None:
        connection = http.client.HTTPSConnection(address("edge-1"), context=context, timeout=20)
        while not over.is_set():
            try:
                connection.request("POST", "/predict", '{"text": "what a day"}', headers)
                answer = connection.getresponse()
                answer.read()
                wrong = "" if answer.status == 200 else f"HTTP {answer.status}"
            except (OSError, http.client.HTTPException) as error:
                wrong = repr(error)
                connection.close()
            with found.lock:
                found.sent += 1
                found.failed += [wrong] if wrong else []
            time.sleep(0.05)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def switched(installed: Journey) -> Iterator[tuple[Load, list[Any]]]:
    """To green and back, twice, under load."""
    answers = []
    agent(installed, "lock", "--run", RUN, "--owner", "tests", "--verb", "switch")
    with load(installed) as found:
        for colour in ("green", "blue", "green", "blue"):
            answers.append(switch(installed, colour))
            answers.append(switch(installed, colour))
    yield found, answers
    agent(installed, "unlock", "--run", RUN)


def test_no_request_failed(switched: tuple[Load, list[Any]]) -> None:
    found, _ = switched
    assert found.sent > 200
    assert found.failed == []


def test_each_switch_was_one_new_generation_and_its_repetition_none(
    installed: Journey, switched: tuple[Load, list[Any]]
) -> None:
    _, answers = switched
    assert [answer["changed"] for answer in answers] == [True, False] * 4
    generations = [answer["generation"] for answer in answers]
    first = generations[0]
    assert generations == [first + step for step in range(4) for _ in range(2)]
    shown = agent(installed, "show")
    assert shown["active"] == "blue"
    assert shown["served_generation"] == shown["live_generation"] == first + 3
    assert shown["unfinished"] == []


def test_only_the_holder_may(installed: Journey, switched: tuple[Load, list[Any]]) -> None:
    assert switched
    said = agent(
        installed,
        *("lock", "--run", "other", "--owner", "somebody", "--verb", "upgrade"),
        check=False,
    )
    assert "tests is at work on this site" in said
    assert "unlock --run e2e" in said


def test_no_worker_of_an_old_generation_is_left(
    installed: Journey, switched: tuple[Load, list[Any]]
) -> None:
    assert switched
    listed = installed.lab.console("edge-1", "docker top airlift-edge -eo pid,args").output
    assert "worker process" in listed
    assert "shutting down" not in listed
