"""The OpenAPI document against a running service: Schemathesis tries what it allows and forbids."""

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


@pytest.mark.docker
@pytest.mark.slow
def test_a18_the_service_keeps_what_its_document_promises(shared: Site, web: Process) -> None:
    key = add(shared, "schemathesis")[1]
    examples = ["--max-examples", "400"] if SOAK else ["--max-examples", "10"]
    done = subprocess.run(
        [
            *("schemathesis", "--config-file", str(CONFIG), "run", f"{web.url}/openapi.json"),
            *("--header", f"X-API-Key: {key}", "--checks", "all", "--generation-deterministic"),
            *("--no-color", "--continue-on-failure", *examples),
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
