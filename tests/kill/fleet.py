"""The service's real processes, and the code that kills them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from app import failpoints
from tests.unit.app import warm
from tests.unit.app.appkit import ROOT, Site, eventually, free_port

Started = subprocess.Popen[bytes] | warm.Started

LEASE_SECONDS = 1.0
API_POINTS = tuple(sorted(p for p in failpoints.POINTS if p.startswith(("trigger.", "cancel."))))
#: These want a worker that is told to stop while it holds a job, or that has nothing to do.
RELEASE_POINTS = ("release.before", "release.after")
IDLE_POINTS = ("hint.read",)
WORKER_POINTS = tuple(sorted(failpoints.POINTS - {*API_POINTS, *RELEASE_POINTS, *IDLE_POINTS}))

#: The kind of job that leads a worker to such a place.
FEEDS = {"end": "missing", "retry": "flaky", "heartbeat": "slow"}


class Fleet:
    """Starts, watches and kills the processes of one site; counts each kill by its kind."""

    def __init__(
        self, site: Site, folder: Path, address: str, code: Path = ROOT, *, warm: bool = False
    ) -> None:
        self.site = site
        self._warm = warm
        self.folder = folder
        self.kills: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._marks = folder / "fired"
        self._marks.mkdir()
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._environment = {
            **site.environment,
            "PYTHONPATH": f"{ROOT / 'tests' / 'kill' / 'armed'}:{code}",
            "AIRLIFT_FAILPOINTS_FIRED": str(self._marks),
            "API_SOURCES_ALLOWED": f'["{address}"]',
            "JOB_MAX_ATTEMPTS": "15",
            "JOB_LEASE_SECONDS": str(LEASE_SECONDS),
            "JOB_BACKOFF_BASE_SECONDS": "0.05",
            "JOB_BACKOFF_CAP_SECONDS": "0.2",
            "WORKER_POLL_SECONDS": "0.3",
            "WORKER_CONCURRENCY_MAX": "6",
            "WORKER_QUEUE_AGE_SECONDS": "1",
            "LOG_LEVEL": "warning",
        }
        self._started: list[Started] = []
        self.api: Started | None = None

    def count(self, kind: str) -> None:
        """Note a kill."""
        with self._lock:
            self.kills[kind] += 1

    def start(self, command: str, name: str, **extra: str) -> Started:
        """Start `python -m app COMMAND` in a group of its own; its log goes to a file."""
        environment = {**self._environment, **extra}
        process: Started
        with (self.folder / f"{name}.log").open("ab") as log:
            if self._warm:
                streams = {"stdout": log.fileno(), "stderr": log.fileno()}
                process = warm.start("app", [command], env=environment, cwd=self.folder, **streams)
            else:
                process = subprocess.Popen(
                    [sys.executable, "-m", "app", command],
                    env=environment,
                    cwd=self.folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        with self._lock:
            self._started.append(process)
        return process

    def worker(self, slot: str, **extra: str) -> Started:
        """A worker; `slot` names its log and its drain file."""
        port = {"WORKER_METRICS_PORT": str(free_port())}
        return self.start(
            "worker", slot, DRAIN_FILE=str(self.folder / f"{slot}.drain"), **port, **extra
        )

    def serve(self) -> None:
        """Start gunicorn on the run's port, armed at every failpoint of the API."""
        self.api = self.start(
            "serve",
            "api",
            PORT=str(self._port),
            DRAIN_FILE=str(self.folder / "api.drain"),
            PROMETHEUS_MULTIPROC_DIR=str(self.folder / "prom"),
            AIRLIFT_FAILPOINTS=",".join(f"{point}=kill:2" for point in API_POINTS),
        )
        eventually(self._answers, seconds=30, what="the service")

    def _answers(self) -> bool:
        return httpx.get(f"{self.url}/health", timeout=2).status_code == 200

    def fired(self, point: str) -> bool:
        """Whether a process was ended or frozen at a failpoint."""
        return (self._marks / point).exists()

    def disarm(self, point: str) -> None:
        """Keep a failpoint from firing until it is armed again."""
        (self._marks / point).touch()

    def rearm(self, point: str) -> None:
        """Let a failpoint fire again."""
        (self._marks / point).unlink(missing_ok=True)

    def died_at(self, point: str, worker: Started, seconds: float) -> bool:
        """Wait for a worker to end itself at a failpoint; False if it did not."""
        try:
            code = worker.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if code != -signal.SIGKILL or not self.fired(point):
            return False
        self.count("worker at a failpoint")
        return True

    def kill_api_worker(self, chance: random.Random) -> None:
        """kill -9 of one of gunicorn's workers; the master starts another."""
        assert self.api is not None
        children = Path(f"/proc/{self.api.pid}/task/{self.api.pid}/children").read_text().split()
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(chance.choice(children)), signal.SIGKILL)
            self.count("api worker")

    def kill_api_master(self) -> None:
        """kill -9 of gunicorn's master alone; its workers see it and end, then it starts again."""
        assert self.api is not None
        self.api.kill()
        self.api.wait()
        self.count("api master")
        group = self.api.pid
        with contextlib.suppress(AssertionError):
            eventually(lambda: not _group_lives(group), seconds=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self.serve()

    def kill_postgres(self) -> None:
        """kill -9 of the postmaster and all its children; it recovers from its log."""
        self.site.postgres.kill()
        self.count("postgres")
        self.site.postgres.up()

    def kill_redis(self) -> None:
        """kill -9 of Redis; it comes back empty."""
        self.site.redis.kill()
        self.count("redis")
        time.sleep(0.3)
        self.site.redis.up()

    def flush_redis(self) -> None:
        """FLUSHALL: streams and groups disappear while workers read them."""
        assert self.site.redis.command("FLUSHALL")
        self.count("redis flushall")

    def end(self) -> None:
        """Kill what is left."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class Slot(threading.Thread):
    """Keeps one worker alive and kills it again and again, as its plan says.

    An item of the plan is the name of a failpoint, or `random` (kill -9 at a random time) or
    `freeze` (SIGSTOP past the lease, then SIGCONT).
    """

    def __init__(
        self, fleet: Fleet, feed: Callable[[str], None], name: str, plan: list[str], *, seed: int
    ) -> None:
        super().__init__(daemon=True)
        self._fleet = fleet
        self._feed = feed
        self._slot = name
        self._plan = plan
        self._chance = random.Random(seed)
        self.hit: set[str] = set()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Carry out the plan; then leave a healthy worker running."""
        try:
            for item in self._plan:
                if self._once(item) or self._once(item):
                    self.hit.add(item)
            self._fleet.worker(self._slot)
        except BaseException as error:  # the main thread raises it again
            self.failure = error

    def _once(self, item: str) -> bool:
        if item == "random":
            return self._random()
        if item == "freeze":
            return self._freeze()
        self._fleet.rearm(item)
        count = self._chance.randint(1, 2) if item.startswith(("claim", "succeed")) else 1
        worker = self._fleet.worker(self._slot, AIRLIFT_FAILPOINTS=f"{item}=kill:{count}")
        kind = FEEDS.get(item.partition(".")[0])
        for _ in range(15):
            if self._fleet.died_at(item, worker, 1):
                return True
            if worker.poll() is not None:
                return False
            if kind is not None:
                self._feed(kind)
        worker.kill()
        worker.wait()
        self._fleet.count("worker")
        return False

    def _random(self) -> bool:
        worker = self._fleet.worker(self._slot)
        time.sleep(self._chance.uniform(0.8, 3.0))
        worker.kill()
        worker.wait()
        self._fleet.count("worker")
        return True

    def _freeze(self) -> bool:
        worker = self._fleet.worker(self._slot)
        time.sleep(self._chance.uniform(1.5, 2.5))
        worker.send_signal(signal.SIGSTOP)
        time.sleep(2.5 * LEASE_SECONDS)
        worker.send_signal(signal.SIGCONT)
        time.sleep(1.0)
        self._fleet.count("worker frozen past its lease")
        worker.kill()
        worker.wait()
        self._fleet.count("worker")
        return True
