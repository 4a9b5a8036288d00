"""Record of the clients: each job that they requested, and the answers that they got."""

from __future__ import annotations

import random
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

#: Kind of job, its share of the load, the states it may end in.
KINDS: dict[str, tuple[float, frozenset[str]]] = {
    "file": (0.62, frozenset({"succeeded"})),
    "slow": (0.12, frozenset({"succeeded"})),
    "flaky": (0.08, frozenset({"succeeded"})),
    "missing": (0.08, frozenset({"failed"})),
    "fail": (0.02, frozenset({"dead"})),
    "cancel": (0.08, frozenset({"cancelled", "succeeded"})),
}
FILES = 20


@dataclass
class Entry:
    """One request for a job, known to its client by the idempotency key."""

    number: int
    kind: str
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    #: Every id that a 202 gave for this key: more than one is a duplicate.
    ids: set[str] = field(default_factory=set)
    #: The answer to its cancellation: 200 or 409, or 404 if the accepted job was lost.
    cancelled: int | None = None

    def body(self, address: str) -> dict[str, Any]:
        """The request's body."""
        match self.kind:
            case "file":
                path = f"part-{self.number % FILES}.csv"
            case "missing":
                path = "missing.csv"
            case "flaky" | "changing":
                return _api(f"http://{address}/{self.kind}/{self.number}")
            case "fail":
                return _api(f"http://{address}/fail")
            case _:
                return _api(f"http://{address}/slow")
        return {"source_type": "file", "config": {"root": "inbox", "path": path}}


def _api(url: str) -> dict[str, Any]:
    return {"source_type": "api", "config": {"url": url}}


class Ledger:
    """Clients that ask for jobs and never give up on an unknown outcome."""

    def __init__(self, url: str, address: str, seed: int) -> None:
        self._url = url
        self._address = address
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.entries: list[Entry] = []
        self.unsure = 0
        #: Clients ask for nothing new while this is set.
        self.wait = False

    def new(self, kind: str | None = None) -> Entry:
        """The next request; the kind is drawn by its share if it is not given."""
        with self._lock:
            if kind is None:
                shares = [share for share, _states in KINDS.values()]
                (kind,) = self._random.choices(list(KINDS), shares)
            entry = Entry(len(self.entries), kind)
            self.entries.append(entry)
            return entry

    def ask(self, http: httpx.Client, entry: Entry, seconds: float = 60) -> str:
        """Send a request until it is accepted; an outcome that is not known is asked for again."""
        answer = self._insist(
            http,
            "/api/v1/jobs/trigger",
            {202},
            seconds,
            json=entry.body(self._address),
            headers={"idempotency-key": entry.key},
        )
        job: str = answer.json()["job_id"]
        entry.ids.add(job)
        return job

    def cancel(self, http: httpx.Client, entry: Entry, seconds: float = 60) -> None:
        """Cancel a job that was accepted."""
        (job,) = entry.ids
        answer = self._insist(http, f"/api/v1/jobs/{job}/cancel", {200, 404, 409}, seconds)
        entry.cancelled = answer.status_code

    def _insist(
        self, http: httpx.Client, path: str, wanted: set[int], seconds: float, **options: Any
    ) -> httpx.Response:
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = http.post(self._url + path, **options)
                if answer.status_code in wanted:
                    return answer
                problem = f"{answer.status_code} {answer.text}"
                if answer.status_code < 500:
                    raise AssertionError(f"{path}: {problem}")
            except httpx.TransportError as error:
                problem = repr(error)
            with self._lock:
                self.unsure += 1
            if time.monotonic() > deadline:
                raise AssertionError(f"{path}: not within {seconds} s: {problem}")
            time.sleep(0.1)

    def client(self, more: threading.Event, pause: float, seed: int) -> None:
        """One client: asks for jobs, cancels some, repeats some, until `more` is cleared."""
        chance = random.Random(seed)
        with httpx.Client(timeout=10) as http:
            while more.is_set():
                if self.wait:
                    time.sleep(0.1)
                    continue
                entry = self.new()
                self.ask(http, entry)
                if entry.kind == "cancel":
                    time.sleep(chance.uniform(0, 0.6))
                    self.cancel(http, entry)
                elif chance.random() < 0.05:
                    self.ask(http, entry)
                time.sleep(chance.uniform(0, 2 * pause))
