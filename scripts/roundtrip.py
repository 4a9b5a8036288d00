"""The round trip: a release is upgraded and rolled back while clients send requests.

The demo shows it, the benchmark measures it, and the end-to-end tests use its parts.
"""

from __future__ import annotations

import re
import threading
import time
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scripts.journey import Journey, JourneyError
from scripts.load import Load, Result

#: Requests per second. The whole site shares two cores with the clients.
RATE = 40.0
STEADY_SECONDS = 12.0
_DELIVERED = re.compile(
    r"^changed: \[(?P<host>\S+)\] images: .*: (?P<names>.*): (?P<megabytes>[\d.]+) MB in "
    r"(?P<seconds>[\d.]+) s \(registry, (?P<pulled>[\d.]+) s of it the pull\)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Delivered:
    """The images that a host received, with their bytes and the time."""

    components: tuple[str, ...]
    bytes: int
    #: Time of the whole task: the tunnel, the pull, the test in a container, the flush to disk.
    seconds: float
    #: Time of the pull alone.
    pulled: float

    @classmethod
    def reported_in(cls, output: str) -> dict[str, Delivered]:
        """Read the deliveries from a playbook's output; the last one to each host counts."""
        return {
            found["host"]: cls(
                tuple(found["names"].split(", ")),
                int(float(found["megabytes"]) * 1e6),
                float(found["seconds"]),
                float(found["pulled"]),
            )
            for found in _DELIVERED.finditer(output)
        }


def sql(journey: Journey, query: str) -> list[str]:
    """Query the site's database as its superuser; return the lines of the answer."""
    psql = "psql -X -U postgres -d airlift -tA -v ON_ERROR_STOP=1"
    script = f"docker exec -i airlift-postgres {psql}"
    return journey.lab.console("data-1", script, stdin=query).output.split("\n")[:-1]


class Served:
    """Measures the seconds from the start of its ``with`` block until a release answers."""

    def __init__(self, journey: Journey, release: str) -> None:
        self._journey = journey
        self._release = release
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._start = time.monotonic()
        self.seconds: float | None = None

    def __enter__(self) -> Served:
        """Begin to send requests."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sending requests."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while self.seconds is None and not self._over.wait(0.1):
            try:
                _, _, answer = self._journey.request("GET", "/health", key=False)
            except (OSError, urllib.error.URLError):
                continue
            if isinstance(answer, dict) and answer.get("release") == self._release:
                self.seconds = time.monotonic() - self._start


@dataclass
class RoundTrip:
    """Upgrades and rollbacks of a journey's site, with their results."""

    journey: Journey
    patch: str = "1.1.0"
    rate: float = RATE
    #: Bytes of the bundle that carried only what changed.
    carried: int = 0
    #: Bytes of the same release's whole bundle.
    whole: int = 0
    #: Host: (bytes, seconds) of the images that an upgrade brought.
    delivered: dict[str, Delivered] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    stored: int = 0
    _load: Load | None = None

    def bring(self) -> None:
        """Build the next release as a full bundle and as a delta; carry and import the delta."""
        facts = self.journey.facts
        first = (facts.bundle, facts.bundle_bytes, facts.manifest)
        self.journey.build(patch=self.patch)
        self.whole = facts.bundle_bytes
        self.journey.bring(patch=self.patch)
        self.carried = facts.bundle_bytes
        # The table at the end is about the release that was installed.
        facts.bundle, facts.bundle_bytes, facts.manifest = first

    def plan(self) -> None:
        """Print what an upgrade would do."""
        self.journey.play("upgrade", "--check")

    def start_clients(self) -> None:
        """Start the clients, and measure them for a while before anything changes."""
        self.journey.feed()
        self._load = self.journey.load(self.rate)
        self._load.__enter__()
        self._load.phase("steady")
        time.sleep(STEADY_SECONDS)

    def upgrade(self) -> None:
        """Upgrade while the clients continue."""
        self._phase("upgrade")
        output = self._timed("upgrade", "upgrade")
        self.delivered.update(Delivered.reported_in(output))
        self._phase("steady")

    def rollback(self) -> None:
        """Roll back while the clients continue."""
        self._phase("rollback")
        before = self.journey.facts.manifest["version"]
        with Served(self.journey, before) as served:
            self._timed("rollback", "rollback")
        if served.seconds is not None:
            self.seconds["rollback until it serves"] = served.seconds
        self._phase("steady")

    def stop_clients(self) -> None:
        """Stop the clients, and compare the answers that they got with the database."""
        time.sleep(3)
        assert self._load is not None  # noqa: S101 - the step before
        self.close()
        found = self.result
        mine = f"SELECT name FROM items WHERE name LIKE 'load-{found.run}-%'"  # noqa: S608 - hex
        stored = sql(self.journey, mine)
        self.stored = len(stored)
        if found.failed or set(stored) != found.accepted_items or len(set(stored)) != len(stored):
            message = f"{self.stored} of {len(found.accepted_items)} items are stored\n{found}"
            raise JourneyError(message)

    def close(self) -> None:
        """Stop the clients, if they run."""
        if self._load is not None:
            self._load.__exit__(None, None, None)

    @property
    def result(self) -> Result:
        """Return the results of the clients."""
        assert self._load is not None  # noqa: S101 - only after the clients came
        return self._load.result

    @property
    def swaps(self) -> list[str]:
        """Return the phases with an upgrade or a rollback."""
        return [name for name in self.result.phases if name in ("upgrade", "rollback")]

    def rows(self) -> list[tuple[str, str]]:
        """Return the lines of the table at the end."""
        found, steady = self.result, self.result.phases["steady"]
        swaps = [self.result.phases[name] for name in self.swaps]
        worst = max(phase.latency.p99 for phase in swaps)
        usual = max(phase.latency.p50 for phase in swaps)
        rows = [
            (
                "upgrade carried",
                f"{self.carried / 1e6:.1f} MB as a delta, of {self.whole / 1e6:.1f} MB",
            ),
            *(
                (f"upgrade to {host}", f"{it.bytes / 1e6:.2f} MB of images in {it.seconds:.1f} s")
                for host, it in sorted(self.delivered.items())
            ),
            ("requests sent", f"{found.sent}, {sum(phase.sent for phase in swaps)} during swaps"),
            ("requests failed", str(found.failed)),
            ("items stored", f"{self.stored} of {len(found.accepted_items)} that were accepted"),
            ("p50 / p99 steady", _milliseconds(steady.latency.p50, steady.latency.p99)),
            ("p50 / p99 in swaps", _milliseconds(usual, worst)),
            ("longest gap", f"{found.longest_gap * 1000:.0f} ms between two answers"),
        ]
        return rows + [(f"time: {name}", f"{value:7.1f} s") for name, value in self.seconds.items()]

    def _phase(self, name: str) -> None:
        if self._load is not None:
            self._load.phase(name)

    def _timed(self, name: str, verb: str) -> str:
        start = time.monotonic()
        output = self.journey.play(verb).output
        self.seconds[name] = time.monotonic() - start
        return output


def _milliseconds(*seconds: float) -> str:
    return " / ".join(f"{value * 1000:.0f} ms" for value in seconds)


#: A step of the demo: (name, title, action, result).
Part = tuple[str, str, Callable[[], Any], Callable[[], str]]


def parts(trip: RoundTrip) -> list[Part]:
    """Return the steps, in order."""

    def carried() -> str:
        return f"{trip.carried / 1e6:.0f} MB"

    def failed() -> str:
        found = trip.result
        return f"{found.sent} requests, {found.failed} failed"

    return [
        ("next", "Import the next release as a delta", trip.bring, carried),
        ("plan", "Plan the upgrade", trip.plan, lambda: ""),
        ("clients", "Start the clients", trip.start_clients, lambda: f"{trip.rate:.0f} requests/s"),
        ("upgrade", "Upgrade under load", trip.upgrade, lambda: ""),
        ("rollback", "Roll back under load", trip.rollback, lambda: ""),
        ("count", "Check the clients' results", trip.stop_clients, failed),
    ]
