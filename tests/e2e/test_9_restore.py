"""Restore a backup as docs/OPERATIONS.md describes: the database equals the dump.

This file is last, because a restore removes what earlier tests have written.
"""

from __future__ import annotations

import json
import re

from scripts.facts import documented
from scripts.journey import Journey
from scripts.roundtrip import sql
from tests.e2e.upgrades import agent

FOLDER = "/var/lib/airlift/backup"


def test_a_backup_is_restored_by_the_documented_commands(installed: Journey) -> None:
    done = installed.lab.console("data-1", f"ls {FOLDER}/*-to-*.json | tail -1")
    record = json.loads(installed.lab.read("data-1", done.output.strip()))
    assert agent(installed, "show")["release"] == "1.0.0"
    installed.play("retire")
    # Written after the dump.
    sql(installed, "INSERT INTO schema_version VALUES (9, 1)")
    words = documented("restore", "OPERATIONS.md")
    words, count = re.subn(r"DUMP=\S+", f"DUMP={FOLDER}/{record['dump']}", words)
    assert count == 1
    installed.lab.ssh("ssh airlift-admin@172.30.3.10 bash -eu -s", stdin=words)
    assert sql(installed, "SELECT max(version) FROM schema_version") == ["2"]
    stored = {name.rpartition(".")[2]: found["rows"] for name, found in record["tables"].items()}
    for table in ("items", "jobs", "api_keys"):
        assert sql(installed, f"SELECT count(*) FROM {table}") == [str(stored[table])], table
    said = " ".join(installed.status().output.split())
    assert "Site lab runs release 1.0.0: everything is as it should be." in said
