"""Preflight refuses, names and touches nothing."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import testinfra

from tests.molecule.default.conftest import Run

PLAYBOOK = "playbooks/preflight.yml"
REPORT = Path(os.environ["AIRLIFT_TRY"]) / "release/state/preflight.json"


def findings(check: str) -> list[dict[str, str]]:
    report = json.loads(REPORT.read_text())
    assert report["passed"] is False
    return [row for row in report["errors"] if row["check"] == check]


@pytest.fixture(scope="module")
def refused(host: testinfra.host.Host, playbook: Run) -> subprocess.CompletedProcess[str]:
    """Everything is wrong at once, on a host that runs."""
    settings = {
        "container_engine_log_sise": "5m",
        "preflight_memory_mb": {"dmz": 9999999, "app": 0, "data": 0, "monitor": 0},
        "preflight_data_gb": {"dmz": 0, "app": 0, "data": 99999, "monitor": 0},
    }
    host.check_output("systemd-run --unit=squatter python3 -m http.server 5432")
    try:
        done = playbook(PLAYBOOK, "--extra-vars", json.dumps(settings))
    finally:
        host.check_output("systemctl stop squatter")
    assert done.returncode != 0
    assert "\n0 changed, " in done.stdout
    return done


def test_a_misspelt_variable_is_named(refused: subprocess.CompletedProcess[str]) -> None:
    assert "container_engine_log_size" in refused.stdout
    (found,) = findings("variable name")
    assert found["fact"] == "container_engine_log_sise is set in --extra-vars"
    assert "did you mean container_engine_log_size" in found["fix"]


@pytest.mark.usefixtures("refused")
def test_missing_secrets_are_named_with_their_place() -> None:
    named = {row["fact"].split()[0]: row["fix"] for row in findings("missing variable")}
    assert "vault.yml" in named["postgres_owner_password"]
    assert "tls_ca_passphrase" not in named


@pytest.mark.usefixtures("refused")
def test_a_taken_port_is_named_and_ours_is_not() -> None:
    (found,) = findings("ports")
    assert found["host"] == "site-1"
    assert "5432 by python3" in found["fact"]
    assert "443" not in found["fact"], "that one is our own container's"


@pytest.mark.usefixtures("refused")
def test_needs_of_the_host_are_compared() -> None:
    (memory,) = findings("memory")
    assert "9999999 MB" in memory["need"]
    (disk,) = findings("disk")
    assert "/var/lib/airlift" in disk["need"]
    assert disk["fix"]
