"""Preflight refuses, names and touches nothing."""

import json
import os
from pathlib import Path

import testinfra

from tests.molecule.default.conftest import Run

PLAYBOOK = "playbooks/preflight.yml"
REPORT = Path(os.environ["AIRLIFT_TRY"]) / "release/state/preflight.json"


def findings(check: str) -> list[dict[str, str]]:
    report = json.loads(REPORT.read_text())
    assert report["passed"] is False
    return [row for row in report["errors"] if row["check"] == check]


def test_a_misspelt_variable_is_named(playbook: Run) -> None:
    refused = playbook(PLAYBOOK, "--extra-vars", "container_engine_log_sise=5m")
    assert refused.returncode != 0
    assert "container_engine_log_size" in refused.stdout
    (found,) = findings("variable name")
    assert found["fact"] == "container_engine_log_sise is set in --extra-vars"
    assert "did you mean container_engine_log_size" in found["fix"]


def test_missing_secrets_are_named_with_their_place(playbook: Run) -> None:
    assert playbook(PLAYBOOK).returncode != 0
    named = {row["fact"].split()[0]: row["fix"] for row in findings("missing variable")}
    assert "vault.yml" in named["postgres_owner_password"]
    assert "tls_ca_passphrase" not in named


def test_a_taken_port_is_named_and_ours_is_not(host: testinfra.host.Host, playbook: Run) -> None:
    host.check_output("systemd-run --unit=squatter python3 -m http.server 5432")
    try:
        playbook(PLAYBOOK)
    finally:
        host.check_output("systemctl stop squatter")
    (found,) = findings("ports")
    assert found["host"] == "site-1"
    assert "5432 by python3" in found["fact"]
    assert "443" not in found["fact"], "that one is our own container's"


def test_needs_of_the_host_are_compared(playbook: Run) -> None:
    playbook(
        PLAYBOOK,
        "--extra-vars",
        '{"preflight_memory_mb": {"dmz": 9999999, "app": 0, "data": 0, "monitor": 0}, '
        '"preflight_data_gb": {"dmz": 0, "app": 0, "data": 99999, "monitor": 0}}',
    )
    (memory,) = findings("memory")
    assert "9999999 MB" in memory["need"]
    (disk,) = findings("disk")
    assert "/var/lib/airlift" in disk["need"]
    assert disk["fix"]


def test_a_host_that_is_down_is_one_finding_among_others(playbook: Run) -> None:
    playbook(
        PLAYBOOK, "--extra-vars", "ansible_host=172.26.2.99", "-e", "preflight_connect_seconds=2"
    )
    (down,) = findings("reachable")
    assert "172.26.2.99" in down["fact"]
    assert findings("missing variable"), "the others are still said"


def test_nothing_was_changed(playbook: Run) -> None:
    assert "\n0 changed, " in playbook(PLAYBOOK).stdout
