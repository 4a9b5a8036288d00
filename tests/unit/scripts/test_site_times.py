"""Measurements of an operator's commands, and the comparison of two trees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import bench_commands, bench_page, site_times


def test_the_counter_stands_beside_the_callbacks_of_a_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ansible.cfg").write_text("[defaults]\nroles_path = ./roles\n")
    alone = site_times.counting()
    assert alone["ANSIBLE_CALLBACKS_ENABLED"] == "remote_steps"
    cfg = "[defaults]\ncallback_plugins = ./callbacks\ncallbacks_enabled = other\n"
    (tmp_path / "ansible.cfg").write_text(cfg)
    both = site_times.counting()
    assert both["ANSIBLE_CALLBACK_PLUGINS"] == f"./callbacks:{alone['ANSIBLE_CALLBACK_PLUGINS']}"
    assert both["ANSIBLE_CALLBACKS_ENABLED"] == "other,remote_steps"


def measured(seconds: float) -> dict[str, dict[str, Any]]:
    one = {"seconds": seconds, "changed": 0, "steps": 20, "alone": 5, "calls": 40, "work": 6.0}
    return {command: dict(one) for command in bench_commands.COMMANDS}


def test_a_trees_commands_are_compared_with_the_older_trees() -> None:
    found = bench_commands.compared(measured(100.0), measured(30.0))
    assert found["install_time_ratio"] == 0.3
    assert found["reinstall_time_ratio"] == 0.3
    assert found["reinstall_own_time_ratio"] == 1
    assert found["upgrade_overhead_ratio"] == 5
    assert found["before_reinstall_remote_steps"] == found["reinstall_remote_steps"] == 20
    # Skip rollback: its time runs until the previous release serves, another measurement.
    assert "rollback_seconds" not in found
    json.dumps(found)
    ratios = {key for key in found if key.endswith("_ratio")}
    assert ratios <= set(bench_page.MEASURED)
    page = bench_page.page(bench_page.load() | found | {"before_revision": "0123abc"})
    assert "| install again, nothing to do | 100 | 30 | 20 | 20 | 5 | 5 |" in page
