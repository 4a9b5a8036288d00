"""The results of a load, for programs and for people."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bundle.core.text import table

_SHOWN_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Record:
    """One request.

    Attributes:
        due: When it was to start, on the monotonic clock, in seconds.
        late: Seconds by which it started later, because this program was held up.
        kind: ``item``, ``predict``, ``ready``, ``root``, ``job`` or ``slow``.
        far: Whether a far client sent it.
        latency: Seconds from ``due`` to the end of the answer, or to the failure.
        ok: Whether the answer was the right one.
        colour: The colour that the answer named, or "".
        release: The release that the answer named, or "".
        opened: When its connection was opened, on the same clock; infinite without a connection.
    """

    due: float
    late: float
    kind: str
    far: bool
    latency: float
    ok: bool
    colour: str
    release: str
    opened: float


@dataclass(frozen=True)
class Failure:
    """One request that failed.

    Attributes:
        kind: As in ``Record``.
        far: Whether a far client sent it.
        time: When it failed, UTC, ISO 8601.
        second: When it was due, in seconds from the load's start.
        phase: Phase in which it was due.
        latency: Seconds from when it was due until it failed.
        status: Status of the answer, None if there was none.
        error: What is wrong.
        connection_age: Seconds that its connection was open before; 0 without a connection.
        served_before: Requests answered on its connection before.
        request_id: Its X-Request-Id, to be found in the logs of edge and service.
    """

    kind: str
    far: bool
    time: str
    second: float
    phase: str
    latency: float
    status: int | None
    error: str
    connection_age: float
    served_before: int
    request_id: str

    def __str__(self) -> str:
        """Return one line about the failure."""
        way = "far" if self.far else "near"
        return (
            f"{self.time} {self.phase}: {self.kind} ({way}) after {self.latency * 1000:.0f} ms, "
            f"connection {self.connection_age:.1f} s old, {self.served_before} served before: "
            f"{self.error} [{self.request_id}]"
        )


@dataclass(frozen=True)
class Latency:
    """Latencies of requests with the right answer, in seconds; 0 if there are none."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Latency:
        """Take percentiles by nearest rank."""
        ordered = sorted(values)
        if not ordered:
            return cls(0, 0, 0)
        return cls(*(ordered[math.ceil(p * len(ordered)) - 1] for p in (0.5, 0.99, 1)))

    def __str__(self) -> str:
        """Return the latencies in milliseconds."""
        return " / ".join(f"{value * 1000:.0f}" for value in (self.p50, self.p99, self.max))


@dataclass(frozen=True)
class Phase:
    """A part of a load, or the whole; a request belongs to the phase in which it was due.

    Attributes:
        seconds: How long it lasted.
        sent: Requests, slow ones included.
        failed: Those without the right answer.
        kinds: Requests sent, by kind.
        latency: Of all but the slow requests.
        slow: Of the slow requests, their bodies' time included.
        served: Right answers that named a colour, by "colour release".
        longest_gap: Longest time, in seconds, between two right answers, that touches the phase.
    """

    seconds: float
    sent: int
    failed: int
    kinds: dict[str, int]
    latency: Latency
    slow: Latency
    served: dict[str, int]
    longest_gap: float


@dataclass(frozen=True)
class Result:
    """The results of a load.

    Attributes:
        run: Middle part of all names of this load: items are called ``load-<run>-<n>``.
        total: The whole load; ``sent``, ``failed`` and ``longest_gap`` are short for its own.
        phases: Each phase that saw a request, by name, in order.
        failures: The first 20 in full.
        attempted_items: Names of all items that were sent: what must be the only ones stored.
        accepted_items: Names answered 201: what must be stored.
        accepted_jobs: Ids answered 202: jobs that must end.
        records: Every request, in the order of their ends.
        late: Longest time, in seconds, by which this program itself was late with a request; it is
            part of the latencies.
        cpu: Share of one core that the load's thread took.
    """

    run: str
    total: Phase
    phases: dict[str, Phase]
    failures: list[Failure]
    attempted_items: set[str]
    accepted_items: set[str]
    accepted_jobs: list[str]
    records: list[Record] = field(repr=False)
    late: float
    cpu: float

    @property
    def sent(self) -> int:
        """Return the number of all requests."""
        return self.total.sent

    @property
    def failed(self) -> int:
        """Return the number of requests without the right answer."""
        return self.total.failed

    @property
    def longest_gap(self) -> float:
        """Return the longest time, in seconds, between two right answers."""
        return self.total.longest_gap

    def __str__(self) -> str:
        """Return a table for people, and the failures."""
        heads = ["phase", "seconds", "sent", "failed", "p50/p99/max ms", "slow ms", "gap ms"]
        rows = [
            [
                name,
                f"{phase.seconds:.1f}",
                str(phase.sent),
                str(phase.failed),
                str(phase.latency),
                str(phase.slow) if "slow" in phase.kinds else "-",
                f"{phase.longest_gap * 1000:.0f}",
                ", ".join(f"{who}: {count}" for who, count in phase.served.items()),
            ]
            for name, phase in [*self.phases.items(), ("total", self.total)]
        ]
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.total.kinds.items()))
        lines = [
            table(rows, [*heads, "served by"]),
            f"run {self.run}: {kinds}; {len(self.accepted_items)} items and "
            f"{len(self.accepted_jobs)} jobs accepted",
            f"the load itself: {self.cpu:.1%} of a core, late by {self.late * 1000:.0f} ms at most",
        ]
        if self.failures:
            lines += [f"{self.failed} failed; the first {len(self.failures)}:"]
            lines += [f"  {failure}" for failure in self.failures]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return all but the single records, in JSON's types."""
        kept = dataclasses.replace(self, records=[])
        found = dataclasses.asdict(kept)
        del found["records"]
        for name in ("attempted_items", "accepted_items"):
            found[name] = sorted(found[name])
        return found


class Log:
    """The records of the traffic while it runs.

    Attributes:
        run: Middle part of the names of this load.
        start: When the load started, on the monotonic clock.
        stopped: When nothing becomes due any more; the one who stops the load sets it.
        marks: Start and name of each phase.
        cpu: Seconds of CPU time that were spent.
    """

    def __init__(self) -> None:
        self.run = uuid.uuid4().hex[:12]
        self.start = 0.0
        self.stopped = math.inf
        self.marks: list[tuple[float, str]] = []
        self.cpu = 0.0
        self.attempted_items: set[str] = set()
        self.accepted_items: set[str] = set()
        self.accepted_jobs: list[str] = []
        self._records: list[Record] = []
        self._failures: list[Failure] = []

    def begin(self, moment: float) -> None:
        """Begin, with a phase for requests that are due before the caller names one."""
        self.start = moment
        self.marks.append((moment, "start"))

    def add(self, record: Record, failure: Failure | None) -> None:
        """Record one request."""
        self._records.append(record)
        if failure is not None and len(self._failures) < _SHOWN_FAILURES:
            phase = self.marks[self._phase_at(record.due)][1]
            self._failures.append(dataclasses.replace(failure, phase=phase))

    def result(self) -> Result:
        """Return the results of all records."""
        gaps = self._gaps()
        spans: dict[str, list[tuple[float, float]]] = {}
        ends = [start for start, _ in self.marks[1:]] + [self.stopped]
        for (start, name), end in zip(self.marks, ends, strict=True):
            spans.setdefault(name, []).append((start, max(start, end)))
        by_phase: dict[str, list[Record]] = {name: [] for name in spans}
        for record in self._records:
            by_phase[self.marks[self._phase_at(record.due)][1]].append(record)
        whole = [(self.start, self.stopped)]
        return Result(
            run=self.run,
            total=_phase(self._records, whole, gaps),
            phases={
                name: _phase(records, spans[name], gaps)
                for name, records in by_phase.items()
                if records
            },
            failures=self._failures,
            attempted_items=self.attempted_items,
            accepted_items=self.accepted_items,
            accepted_jobs=self.accepted_jobs,
            records=self._records,
            late=max((record.late for record in self._records), default=0.0),
            cpu=self.cpu / max(self.stopped - self.start, 1e-9),
        )

    def _phase_at(self, moment: float) -> int:
        return bisect.bisect_right(self.marks, moment, key=lambda mark: mark[0]) - 1

    def _gaps(self) -> list[tuple[float, float]]:
        """Return the times without a right answer; before the first and after the last one too."""
        ends = sorted(record.due + record.latency for record in self._records if record.ok)
        last = max([self.stopped, *ends[-1:]])
        return list(itertools.pairwise([self.start, *ends, last]))


def _phase(
    records: Sequence[Record],
    spans: Sequence[tuple[float, float]],
    gaps: Sequence[tuple[float, float]],
) -> Phase:
    right = [record for record in records if record.ok]
    return Phase(
        seconds=sum(end - start for start, end in spans),
        sent=len(records),
        failed=len(records) - len(right),
        kinds=dict(Counter(record.kind for record in records)),
        latency=Latency.of(record.latency for record in right if record.kind != "slow"),
        slow=Latency.of(record.latency for record in right if record.kind == "slow"),
        served=dict(
            Counter(f"{record.colour} {record.release}" for record in right if record.colour)
        ),
        longest_gap=max(
            (
                end - start
                for start, end in gaps
                if any(start < stop and begin < end for begin, stop in spans)
            ),
            default=0.0,
        ),
    )
