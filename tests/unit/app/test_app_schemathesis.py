"""The running service matches its OpenAPI document, tested by Schemathesis."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.app.appkit import Process, Site
from tests.unit.app.test_app_keys import add

SOAK = os.environ.get("AIRLIFT_SOAK") == "1"
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture(scope="module")
def web(shared: Site) -> Process:
    shared.worker()
    return shared.serve(AUTH_ENABLED="true")


# Without a seed each run sends the same requests; other seeds send others.
SEEDS = ["", "1", "2", "3", "4"] if SOAK else [""]


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a18_the_service_keeps_what_its_document_promises(
    shared: Site, web: Process, seed: str
) -> None:
    key = add(shared, f"schemathesis{seed}")[1]
    examples = ["--max-examples", ("100" if seed else "400") if SOAK else "4"]
    chosen = ["--seed", seed] if seed else ["--generation-deterministic"]
    done = subprocess.run(
        [
            *("schemathesis", "--config-file", str(CONFIG), "run", f"{web.url}/openapi.json"),
            *("--header", f"X-API-Key: {key}", "--checks", "all", *chosen),
            *("--no-color", "--continue-on-failure", *examples),
            # The time to generate examples depends on this machine, not on the service.
            "--suppress-health-check=too_slow",
        ],
        cwd=shared.folder,
        env={**shared.environment, "HYPOTHESIS_STORAGE_DIRECTORY": str(shared.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert web.popen.poll() is None
    errors = [line for line in web.lines() if line["level"] in ("error", "critical")]
    assert errors == []
