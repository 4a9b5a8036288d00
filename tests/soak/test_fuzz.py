"""Fuzz each parser of foreign bytes for long: it accepts an input or refuses it with a message.

One named part of `make soak`: `make soak-fuzz`, for AIRLIFT_FUZZ_SECONDS in all (an hour). What was
found lies below .cache/fuzz/, with the inputs that reached something new.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from scripts.lab import ROOT
from tests.fuzz.table import PARSERS

NAMES = sorted(PARSERS)
SECONDS = int(os.environ.get("AIRLIFT_FUZZ_SECONDS", "3600"))
FIRST = os.environ.get("AIRLIFT_FUZZ_SEED", "0")

pytestmark = pytest.mark.timeout(SECONDS + 900)


class Share:
    """Divides the time between the parsers, with what it takes to start each."""

    def __init__(self) -> None:
        self.end = 0.0
        self.start_takes = 5.0

    def seconds(self, number: int) -> int:
        """Return for how long parser `number` is tried."""
        now = time.monotonic()
        self.end = self.end or now + SECONDS
        return max(1, int((self.end - now) / (len(NAMES) - number) - self.start_takes))


share = Share()


@pytest.mark.parametrize("name", NAMES)
def test_takes_or_refuses(name: str, record_property: Callable[[str, object], None]) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.fail("there is no atheris for this machine: it has wheels for x86-64 Linux only")
    command = [sys.executable, "-m", "tests.fuzz", name, "--seed", FIRST]
    seconds, before = share.seconds(NAMES.index(name)), time.monotonic()
    done = subprocess.run(
        ["nice", "-n", "19", *command, "--seconds", str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    said = done.stdout
    if done.returncode == 0:
        share.start_takes = max(0.0, time.monotonic() - before - seconds)
    record_property("inputs", _number(said, r"stat::number_of_executed_units: (\d+)"))
    record_property("places reached", _number(said, r"cov: (\d+)(?!.*cov: \d)"))
    record_property("memory, MB", _number(said, r"stat::peak_rss_mb: +(\d+)"))
    assert done.returncode == 0, said[-6000:]


def _number(text: str, pattern: str) -> str:
    found = re.search(pattern, text, re.DOTALL)
    return f"{int(found[1]):,}" if found else ""
