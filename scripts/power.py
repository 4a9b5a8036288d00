"""Cut the power of the lab's machines, and measure the time until the site serves again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from scripts.journey import Journey, JourneyError


def cut(journey: Journey, hosts: Sequence[str]) -> None:
    """Cut the power of machines at the same moment, without a warning, and restore it."""
    names = [journey.lab.name(host) for host in hosts]
    journey.lab.docker("kill", "--signal", "KILL", *names)
    journey.lab.docker("start", *names)


def until_it_serves(journey: Journey, *, seconds: float = 180) -> float:
    """Return the seconds until the site answers as ready."""
    start = time.monotonic()
    answer: object = "nothing"
    while time.monotonic() - start < seconds:
        try:
            status, _, answer = journey.request("GET", "/health/ready", key=False)
        except OSError as error:
            status, answer = 0, error
        if status == 200 and isinstance(answer, dict) and answer["status"] == "ready":
            return time.monotonic() - start
        time.sleep(0.5)
    message = f"the site does not serve {seconds:.0f} s after its machines started: {answer}"
    raise JourneyError(message)
