"""One run: jobs without kills, jobs with many kills under load, a quiet end, and the verdict."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.kill import oracle
from tests.kill.fleet import (
    API_POINTS,
    IDLE_POINTS,
    LEASE_SECONDS,
    RELEASE_POINTS,
    WORKER_POINTS,
    Fleet,
    Slot,
)
from tests.kill.ledger import FILES, Entry, Ledger
from tests.kill.oracle import Verdict
from tests.kill.source import Source
from tests.unit.app.appkit import ROOT, Postgres, Redis, Site, eventually

CLIENTS = 4
BACKLOG = 150


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and durations of a run."""

    jobs: int
    seed: int = 1
    rounds: int = 1
    directed: int = 1
    random_kills: int = 1
    freezes: int = 0
    service_kills: int = 1
    pause: float = 0.25
    code: Path = ROOT
    #: Whether processes start with their libraries imported already: quicker, and the same service.
    warm: bool = False


@dataclass
class Outcome:
    """What a run found and did."""

    verdict: Verdict
    kills: Counter[str]
    missed: list[str]
    unsure: int
    seconds: float

    @property
    def good(self) -> bool:
        """Whether no job is lost, duplicated or wrong, and each failpoint killed a process."""
        return not self.verdict.faults and not self.missed


@contextmanager
def datastores() -> Iterator[tuple[Postgres, Redis]]:
    """A Postgres and a Redis for one run."""
    with Postgres.start() as postgres, Redis.start() as redis:
        yield postgres, redis


def run(plan: Plan, postgres: Postgres, redis: Redis, say: Callable[[str], None]) -> Outcome:
    """Make a site of its own, do the run on it, judge it."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="airlift-kill-") as name, Source.start() as source:
        folder = Path(name)
        site = Site.create(postgres, redis, folder)
        for number in range(FILES):
            lines = [
                f"{row},I love it" if row % 3 else f"{row},broken" for row in range(number + 1)
            ]
            (site.inbox / f"part-{number}.csv").write_text("\n".join(["id,comment", *lines]))
        site.command("migrate")
        with site.connect() as connection:
            connection.execute(oracle.LOG)
        fleet = Fleet(site, folder, source.address, plan.code, warm=plan.warm)
        try:
            outcome = _Run(plan, site, fleet, source, say).all()
        finally:
            fleet.end()
        outcome.seconds = time.monotonic() - started
        return outcome


class _Run:
    def __init__(
        self, plan: Plan, site: Site, fleet: Fleet, source: Source, say: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.site = site
        self.fleet = fleet
        self.source = source
        self.say = say
        self.chance = random.Random(plan.seed)
        self.ledger = Ledger(fleet.url, source.address, plan.seed)
        self.http = httpx.Client(timeout=10)
        self.references: dict[str, Any] = {}
        self.fence: list[str] = []
        self.api_fired: set[str] = set()
        self.api_rounds = 1

    def all(self) -> Outcome:
        """Every phase, one after another."""
        for point in API_POINTS:
            self.fleet.disarm(point)
        self.fleet.serve()
        self._references()
        missed: list[str] = []
        for _ in range(self.plan.directed):
            self._paused_past_its_lease()
            missed += [point for point in IDLE_POINTS if not self._killed_with_nothing_to_do(point)]
            missed += [point for point in RELEASE_POINTS if not self._killed_giving_back(point)]
        missed += self._storm()
        self.say("calm again; waiting for the last jobs")
        self._settle()
        verdict = oracle.judge(self.site, self.ledger.entries, self.references)
        for text in self.fence:
            verdict.fault("wrong", text)
        self.http.close()
        return Outcome(verdict, self.fleet.kills, missed, self.ledger.unsure, 0)

    def _references(self) -> None:
        """The results of the jobs without kills, one for each file and source."""
        worker = self.fleet.worker("calm")
        entries = [Entry(number, "file") for number in range(FILES)]
        entries += [Entry(-1, "slow"), Entry(-1, "flaky")]
        for entry in entries:
            self.ledger.ask(self.http, entry)
        done = "SELECT count(*) FROM job_results"
        eventually(
            lambda: self.site.one(done) == len(entries), seconds=40, what="the jobs without kills"
        )
        for entry in entries:
            (job,) = entry.ids
            result = self.site.one("SELECT result FROM job_results WHERE job_id = %s", job)
            if entry.kind == "file":
                assert result["records"]["processed"] == entry.number + 1, result
            self.references[oracle.reference(entry)] = oracle.comparable(result)
        self.ledger.entries += entries
        worker.kill()
        worker.wait()

    def _open(self) -> int:
        count: int = self.site.one("SELECT count(*) FROM jobs WHERE finished_at IS NULL")
        return count

    def _open_or_none(self) -> int:
        try:
            return self._open()
        except psycopg.Error:
            return 0

    def _paused_past_its_lease(self) -> None:
        """A worker frozen with its result in hand goes on while another runs the job.

        The source gives one record more each time: so it shows whose result was kept.
        """
        self.source.hold.clear()
        self.fleet.rearm("succeed.before")
        late = self.fleet.worker("late", AIRLIFT_FAILPOINTS="succeed.before=stop")
        entry = self.ledger.new("changing")
        job = self.ledger.ask(self.http, entry)
        eventually(lambda: self.fleet.fired("succeed.before"), what="a frozen worker")
        other = self.fleet.worker("other")
        path = f"/changing/{entry.number}"
        eventually(lambda: self.source.asked[path] == 2, what="another worker to take the job")
        late.send_signal(signal.SIGCONT)
        self.fleet.count("worker frozen past its lease")
        time.sleep(1.5 * LEASE_SECONDS)
        kept = self.site.one("SELECT count(*) FROM job_results WHERE job_id = %s", job)
        state = self.site.one("SELECT state FROM jobs WHERE id = %s", job)
        if (kept, state) != (0, "running"):
            self.fence.append(f"a worker without lease made job {job} {state}, results: {kept}")
        self.source.hold.set()
        eventually(lambda: self._open() == 0, seconds=20, what="the other worker's result")
        for worker in (late, other):
            worker.kill()
            worker.wait()
        self.fleet.rearm("succeed.before")
        result = self.site.one("SELECT result FROM job_results WHERE job_id = %s", job)
        if result["records"]["processed"] != 2:
            self.fence.append(f"job {job} has the result of the worker that had lost it")
        self.references["changing"] = oracle.comparable(result)

    def _killed_with_nothing_to_do(self, point: str) -> bool:
        """A worker gets a wake-up message and is killed before it claims the job."""
        self.fleet.rearm(point)
        worker = self.fleet.worker("idle", AIRLIFT_FAILPOINTS=f"{point}=kill")
        for _ in range(20):
            # The first may come before it listens: then it is found by looking.
            self.ledger.ask(self.http, self.ledger.new("file"))
            if self.fleet.died_at(point, worker, 0.5):
                return True
        return False

    def _killed_giving_back(self, point: str) -> bool:
        """A worker that stops before its job is done is killed while it requeues the job."""
        self.fleet.rearm(point)
        worker = self.fleet.worker(
            "drained", AIRLIFT_FAILPOINTS=f"{point}=kill", WORKER_DRAIN_SECONDS="0.05"
        )
        asked = self.source.asked["/slow"]
        self.ledger.ask(self.http, self.ledger.new("slow"))
        eventually(lambda: self.source.asked["/slow"] > asked, what="a worker to take the job")
        worker.terminate()
        return self.fleet.died_at(point, worker, 10)

    def _storm(self) -> list[str]:
        plan = self.plan
        items = [*WORKER_POINTS] * plan.rounds
        items += ["random"] * plan.random_kills + ["freeze"] * plan.freezes
        self.chance.shuffle(items)
        slots = [
            Slot(
                self.fleet, self._feed, f"slot-{number}", items[number::2], seed=plan.seed + number
            )
            for number in range(2)
        ]
        more = threading.Event()
        more.set()
        clients = [_Client(self.ledger, more, plan.pause, plan.seed + n) for n in range(CLIENTS)]
        self.say(f"a storm: {len(items)} kills of workers, and of everything else")
        if plan.rounds > 1:
            # One is left alone: it has to live through what happens to the datastores.
            self.fleet.worker("steady")
        for thread in (*slots, *clients):
            thread.start()
        for point in API_POINTS:
            self.fleet.rearm(point)
        self._service_kills()
        while any(slot.is_alive() for slot in slots) or (
            len(self.ledger.entries) < plan.jobs and all(client.is_alive() for client in clients)
        ):
            time.sleep(0.2)
            self._note_api_points()
            # No more than a slow machine can work off.
            self.ledger.wait = self._open_or_none() > BACKLOG
        more.clear()
        for thread in (*slots, *clients):
            thread.join()
        for failure in [each.failure for each in slots] + [each.failure for each in clients]:
            if failure is not None:
                raise failure
        self._note_api_points()
        missed = sorted(set(items).difference(*(slot.hit for slot in slots)))
        return missed + sorted(set(API_POINTS) - self.api_fired)

    def _feed(self, kind: str) -> None:
        """A job that leads a worker to the place where it is to die."""
        with httpx.Client(timeout=10) as http:
            self.ledger.ask(http, self.ledger.new(kind))

    def _note_api_points(self) -> None:
        """Count the API's failpoints that fired since; in a long run they are armed again."""
        for point in API_POINTS:
            if self.fleet.fired(point) and point not in self.api_fired:
                self.api_fired.add(point)
                self.fleet.count("api worker at a failpoint")
        if len(self.api_fired) == len(API_POINTS) and self.api_rounds < self.plan.rounds:
            self.api_rounds += 1
            self.api_fired.clear()
            for point in API_POINTS:
                self.fleet.rearm(point)

    def _service_kills(self) -> None:
        """Kill every process that is not a job worker, in random order."""
        fleet = self.fleet
        ways: list[Callable[[], None]] = [
            lambda: fleet.kill_api_worker(self.chance),
            fleet.kill_api_master,
            fleet.kill_postgres,
            fleet.kill_redis,
            fleet.flush_redis,
        ] * self.plan.service_kills
        self.chance.shuffle(ways)
        for way in ways:
            time.sleep(self.chance.uniform(0.5, 1.5))
            way()
            self._note_api_points()

    def _settle(self) -> None:
        """Wait for the last jobs as long as some of them end."""
        left, seen = self._open(), time.monotonic()
        while left and time.monotonic() - seen < 40:
            time.sleep(0.2)
            now = self._open()
            if now < left:
                left, seen = now, time.monotonic()
        if left:
            self.say(f"{left} jobs do not end; the logs stay in {self._keep_logs()}")

    def _keep_logs(self) -> Path:
        kept = Path(tempfile.mkdtemp(prefix="airlift-kill-logs-"))
        for log in self.fleet.folder.glob("*.log"):
            shutil.copy(log, kept)
        return kept


class _Client(threading.Thread):
    def __init__(self, ledger: Ledger, more: threading.Event, pause: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._arguments = (more, pause, seed)
        self._ledger = ledger
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._ledger.client(*self._arguments)
        except BaseException as error:  # the main thread raises it again
            self.failure = error
