"""Measures load from `wrk` and the server's CPU time, for the service's benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")
CLIENTS = 100
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Call:
    """One kind of request; `bodies` is a file of JSON bodies, one per line, sent in turn."""

    method: str
    path: str
    bodies: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """The results of one run of `wrk`, with the CPU seconds of all server processes."""

    requests: int
    seconds: float
    failed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_seconds: float

    @property
    def rps(self) -> float:
        """Return the answers per second."""
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """Return the CPU microseconds per request."""
        return self.cpu_seconds / self.requests * 1e6


@dataclass(frozen=True)
class Running:
    """A server in its own session."""

    pid: int
    url: str

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of its processes so far, including ended ones.

        They are those of its session and their descendants: BentoML's workers open sessions of
        their own.
        """
        found: dict[int, tuple[int, int, int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # The name in parentheses may contain blanks; the fields after it do not.
                fields = stat.read_text().rpartition(")")[2].split()
                ticks = sum(int(value) for value in fields[11:15])
                found[int(stat.parent.name)] = (int(fields[1]), int(fields[3]), ticks)
        own: set[int] = set()
        while more := {
            pid
            for pid, (parent, session, _) in found.items()
            if pid not in own and (session == self.pid or parent in own)
        }:
            own |= more
        return sum(found[pid][2] for pid in own) / _TICKS


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], url: str, folder: Path, log: Path
) -> Iterator[Running]:
    """Start a server that logs to a file, wait until it listens, and end it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, url, log)
        yield Running(process.pid, url)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # LitServe's processes do not end with their parent.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(1200):
        with contextlib.suppress(OSError):
            # An answer with any status counts.
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - our own loopback
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not answer on {url}:\n{log.read_text()[-2000:]}")


def fire(server: Running, call: Call, *, clients: int, seconds: float) -> Sample:
    """Keep `clients` connections busy for some seconds, from one thread."""
    headers = [part for pair in call.headers.items() for part in pair]
    before = server.cpu_seconds()
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(clients), "--timeout", "30s"),
            *("--duration", f"{seconds:g}s", "--script", str(SCRIPT), server.url),
            *("--", call.method, call.path, str(call.bodies or "-"), *headers),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    used = server.cpu_seconds() - before
    sample = Sample(**json.loads(done.stdout.splitlines()[-1]), cpu_seconds=used)
    if sample.failed or not sample.requests:
        sys.exit(
            f"{call.method} {server.url}{call.path}: {sample.failed} of {sample.requests}"
            f" requests failed\n{done.stdout}"
        )
    return sample


def in_turn(
    sides: Sequence[tuple[Running, Call]], *, rounds: int, seconds: float
) -> list[list[Sample]]:
    """Load all sides in turn, in reverse order every other round; return their samples."""
    found: list[list[Sample]] = [[] for _ in sides]
    for server, call in sides:
        fire(server, call, clients=CLIENTS, seconds=2)
    for number in range(rounds):
        order = range(len(sides)) if number % 2 else reversed(range(len(sides)))
        for side in order:
            server, call = sides[side]
            found[side].append(fire(server, call, clients=CLIENTS, seconds=seconds))
    return found


def middle(samples: Sequence[Sample], name: str) -> float:
    """Return the median of one property over some rounds."""
    return statistics.median(float(getattr(sample, name)) for sample in samples)


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample], name: str) -> float:
    """Return the median over the rounds of the ratio of ours to theirs in each round."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(float(getattr(a, name) / getattr(b, name)) for a, b in pairs)
