"""Each parser of foreign bytes is tried for long: it takes an input or refuses it in words.

One named part of `make soak`: `make soak-fuzz`, for AIRLIFT_FUZZ_SECONDS in all (an hour). What was
found lies below .cache/fuzz/, with the inputs that reached something new.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from scripts.lab import ROOT
from tests.fuzz.table import PARSERS

SECONDS = int(os.environ.get("AIRLIFT_FUZZ_SECONDS", "3600"))
FIRST = os.environ.get("AIRLIFT_FUZZ_SEED", "0")

pytestmark = pytest.mark.timeout(SECONDS + 900)


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_takes_or_refuses(name: str, record_property: Callable[[str, object], None]) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.fail("there is no atheris for this machine: it has wheels for x86-64 Linux only")
    command = [sys.executable, "-m", "tests.fuzz", name, "--seed", FIRST]
    done = subprocess.run(
        ["nice", "-n", "19", *command, "--seconds", str(max(1, SECONDS // len(PARSERS)))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    said = done.stdout
    record_property("inputs", _number(said, r"stat::number_of_executed_units: (\d+)"))
    record_property("places reached", _number(said, r"cov: (\d+)(?!.*cov: \d)"))
    record_property("memory, MB", _number(said, r"stat::peak_rss_mb: +(\d+)"))
    assert done.returncode == 0, said[-6000:]


def _number(text: str, pattern: str) -> str:
    found = re.search(pattern, text, re.DOTALL)
    return f"{int(found[1]):,}" if found else ""
