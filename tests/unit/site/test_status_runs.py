"""Runs of playbooks in the status report: in progress, interrupted, failed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.site.statuskit import note, remove, report, site, text

Found = dict[str, Any]


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """Return a healthy site."""
    return site(tmp_path)


def test_a_run_that_was_cut_off_is_to_be_started_again(found: Found) -> None:
    begun = [note("upgrade", release="1.1.0"), note("schema", seq=2)]
    found["edge"]["unfinished"] = begun
    found |= {"release": "1.1.0", "serial": 2}
    (Path(found["releases_dir"]) / "1.0.0").mkdir()
    manifest = {"components": found["components"], "schema": {"head": 1}}
    (Path(found["releases_dir"]) / "1.0.0/manifest.json").write_text(json.dumps(manifest))
    said = text(found)
    words = "upgrade to 1.1.0 was interrupted in step schema; resume with upgrade.yml."
    assert f"needs attention: {words}\n" in said
    assert said.endswith(
        "\nTo cancel it: ansible-playbook playbooks/rollback.yml"
        "\nNext: ansible-playbook playbooks/upgrade.yml"
    )
    assert report(found)["cancel"] == "ansible-playbook playbooks/rollback.yml"
    # The command belongs in the directory of the release that the run installs.
    found |= {"release": "1.0.0", "serial": 1}
    assert f"Next: cd {found['releases_dir']}/1.1.0 && " in text(found)


def test_after_the_switch_there_is_nothing_to_give_up(found: Found) -> None:
    found["edge"]["unfinished"] = [note("upgrade", release="1.0.0")]
    assert text(found).endswith("Next: ansible-playbook playbooks/upgrade.yml")
    assert report(found)["cancel"] == ""


def test_of_several_that_were_cut_off_the_newest_counts(found: Found) -> None:
    found["edge"]["unfinished"] = [
        note("upgrade", release="1.1.0"),
        note("workers", seq=2),
        note("rollback", run="r2", seq=3, release="1.0.0"),
    ]
    said = text(found)
    words = "rollback to 1.0.0 was interrupted; resume with rollback.yml."
    assert f"needs attention: {words}" in said
    assert "upgrade to 1.1.0" not in said
    assert said.endswith("Next: ansible-playbook playbooks/rollback.yml")
    found["edge"]["unfinished"].append(note("images", run="r2", seq=4))
    assert "rollback to 1.0.0 was interrupted in step images" in text(found)


def test_what_was_cut_off_stands_before_its_effects(found: Found) -> None:
    found["edge"]["unfinished"] = [note("upgrade", release="1.1.0")]
    remove(found, "app-1", "worker-blue")
    said = text(found)
    words = "upgrade to 1.1.0 was interrupted; resume with upgrade.yml, and 1 more."
    assert f"needs attention: {words}" in said
    assert "\n  - worker-blue is missing on app-1\n" in said


def test_a_run_at_work_is_left_alone_and_a_dead_one_is_not(found: Found) -> None:
    lease = {"run": "r1", "owner": "ann", "verb": "upgrade", "epoch": 1, "expires": 1.0}
    begun = [note("upgrade", release="1.1.0"), note("colour", seq=2)]
    found["edge"] |= {"unfinished": begun, "lease": lease, "at_work": True}
    said = text(found)
    words = "in progress: upgrade to 1.1.0 in step colour, by ann, since 2026-01-02T00:00:00Z"
    assert words in said
    assert "interrupted" not in said
    assert "Site acme serves release 1.0.0 (blue); a run is in progress." in said
    last = "\nFirst: wait for its end\nNext: ansible-playbook playbooks/status.yml"
    assert said.endswith(last)
    remove(found, "app-1", "worker-blue")
    assert f"\n  - worker-blue is missing on app-1{last}" in text(found)
    found["edge"]["at_work"] = False
    assert "in progress" not in text(found)
    assert "interrupted" in text(found)


def test_a_failed_run_is_not_called_well(found: Found) -> None:
    failed = note("upgrade", "failed", release="1.1.0", why="no room\non app-1")
    found["edge"]["last_run"] = failed
    said = text(found)
    assert "last run: upgrade to 1.1.0, failed at 2026-01-02T00:00:00Z: no room on app-1" in said
    assert (
        "Site acme runs release 1.0.0: what serves is as it should be, but the last upgrade, "
        "to 1.1.0, failed: no room on app-1." in said
    )
    # install.yml confirms the active release, and so clears the failure.
    assert said.endswith("Next: ansible-playbook playbooks/install.yml")
    assert report(found)["verdict"] == "warning"


@pytest.mark.parametrize("verb", ["install", "rollback", "retire"])
def test_another_failed_run_is_started_again(found: Found, verb: str) -> None:
    found["edge"]["last_run"] = note(verb, "failed", release="1.0.0", why="no room")
    assert text(found).endswith(f"Next: ansible-playbook playbooks/{verb}.yml")
