"""A power cut of the lab's machines, and how long a site takes to serve again with nobody there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from scripts.journey import Journey, JourneyError


def cut(journey: Journey, hosts: Sequence[str]) -> None:
    """Take the power from machines at one moment, without a warning, and give it back."""
    names = [journey.lab.name(host) for host in hosts]
    journey.lab.docker("kill", "--signal", "KILL", *names)
    journey.lab.docker("start", *names)


def until_it_serves(journey: Journey, *, seconds: float = 180) -> float:
    """Return after how many seconds the site answers as ready."""
    start = time.monotonic()
    said: object = "nothing"
    while time.monotonic() - start < seconds:
        try:
            status, _, said = journey.request("GET", "/health/ready", key=False)
        except OSError as error:
            status, said = 0, error
        if status == 200 and isinstance(said, dict) and said["status"] == "ready":
            return time.monotonic() - start
        time.sleep(0.5)
    message = f"the site does not serve {seconds:.0f} s after its machines started: {said}"
    raise JourneyError(message)
