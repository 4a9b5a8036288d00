"""The rollback line of the status report promises only what was checked now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.site.statuskit import (
    limit,
    of,
    one_of,
    problems,
    remove,
    report,
    site,
    text,
    upgrade,
)

Found = dict[str, Any]
WARM = "rollback: 1.0.0 (blue), warm until 2026-01-03T00:00:00Z, takes seconds"


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """Return a site that serves 1.1.0 with green; blue is standby with 1.0.0."""
    return upgrade(site(tmp_path), tmp_path)


def test_the_standby_is_the_way_back_while_it_is_warm(found: Found) -> None:
    said = text(found)
    assert WARM in said
    assert "everything is as it should be" in said
    assert "other" not in said
    assert report(found)["rollback"] == {
        "warm": True,
        "warm_until": "2026-01-03T00:00:00Z",
        "line": WARM.removeprefix("rollback: "),
    }


def no_standby(found: Found) -> None:
    remove(found, "app-2", "app-blue")


def unhealthy(found: Found) -> None:
    one_of(found, "app-2", "app-blue")["state"] = "unhealthy"


def other_image(found: Found) -> None:
    one_of(found, "app-2", "app-blue")["image"] = "sha256:c-app"


def other_secrets(found: Found) -> None:
    of(found, "app-2")["differences"] = ["LOG_LEVEL", "secrets"]


def refused(found: Found) -> None:
    of(found, "app-2")["logins"] = {"app-blue": {"redis": "WRONGPASS"}}


def not_ready(found: Found) -> None:
    wrong = {"postgres": "ok", "schema": "too new"}
    of(found, "edge-1")["answers"]["app-blue on app-2"] |= {"status": 503, "checks": wrong}


def unreached(found: Found) -> None:
    of(found, "edge-1")["answers"]["app-blue on app-2"] |= {"status": 0, "error": "timed out"}


def taken_out(found: Found) -> None:
    """Let the edge refuse connections to it, so that it seems to be down."""
    unreached(found)
    out = {"colour": "blue", "state": "out", "since": "12:00", "why": "no answer"}
    found["edge"]["standby_replicas"] = {"app-2": out}


def another(found: Found) -> None:
    of(found, "edge-1")["answers"]["app-blue on app-2"]["release"] = "0.9.0"


@pytest.mark.parametrize(
    ("breaking", "fault"),
    [
        (no_standby, "app-blue is missing on app-2"),
        (unhealthy, "app-blue on app-2 is unhealthy"),
        (other_image, "app-blue on app-2 runs another image than that of 1.0.0"),
        (other_secrets, "started with other values than app-green: LOG_LEVEL, secrets"),
        (refused, "app-blue on app-2 cannot log in"),
        (not_ready, "app-blue on app-2 is not ready"),
        (unreached, "app-blue on app-2 does not answer the edge"),
        (taken_out, "app-blue on app-2 does not answer the edge"),
        (another, "app-blue on app-2 answers as release 0.9.0"),
    ],
)
def test_a_standby_that_cannot_serve_is_not_called_warm(
    found: Found, breaking: Callable[[Found], None], fault: str
) -> None:
    breaking(found)
    said = text(found)
    assert WARM not in said
    assert "rollback: 1.0.0 from its images, takes a minute or two; not warm: " in said
    (only,) = problems(found)
    assert only.startswith("the standby cannot serve at once: ")
    assert fault in only
    assert "what serves is as it should be, but the standby cannot serve at once" in said
    # install.yml recreates the standby with the wanted settings, or removes it with a message.
    assert said.endswith("Next: ansible-playbook playbooks/install.yml")


def test_a_rollback_is_not_rolled_back(found: Found) -> None:
    found["edge"] |= {"release": "1.0.0", "serial": 1}
    found["edge"] |= {"previous_release": "1.1.0", "previous_serial": 2}
    for host in ("app-1", "app-2"):
        of(found, "edge-1")["answers"][f"app-blue on {host}"]["release"] = "1.1.0"
    words = "rollback: none (already rolled back); go forward with upgrade.yml to 1.1.0"
    assert f"{words} (blue, warm until 2026-01-03T00:00:00Z)\n" in text(found)
    unhealthy(found)
    assert f"{words}\n" in text(found)
    found["edge"]["standby"] = None
    assert f"{words}\n" in text(found)


def test_a_window_that_is_over_says_so(found: Found) -> None:
    found["edge"]["warm_until"] = "2026-01-01T12:00:00Z"
    assert "(over; end it with retire.yml)" in text(found)


def retired(found: Found) -> None:
    found["edge"] |= {"standby": None, "warm_until": None}
    for host in {"app-1", "app-2"} & set(found["asked"]):
        remove(found, host, "app-blue")


def test_from_images_is_promised_where_every_host_has_them(found: Found) -> None:
    retired(found)
    assert "rollback: 1.0.0 from its images, takes a minute or two\n" in text(found)
    assert problems(found) == []


def test_an_image_that_only_the_jump_host_has_takes_longer(found: Found, tmp_path: Path) -> None:
    retired(found)
    of(found, "app-2")["images"] = []
    blobs = tmp_path / "store/blobs/sha256"
    blobs.mkdir(parents=True)
    (blobs / "m-old").write_text("")
    (blobs / "c-old").write_text("")
    words = "rollback: 1.0.0 from its images, after delivery to app-2, takes minutes"
    assert words in text(found)
    (blobs / "c-old").unlink()
    said = text(found)
    assert "rollback: none, neither app-2 nor this jump host has the image of 1.0.0\n" in said
    assert "but no rollback is possible: neither app-2 nor this jump host" in said
    assert "\nFirst: import the bundle of 1.0.0 again\nNext: ansible-playbook" in said


def test_a_schema_that_is_too_new_closes_the_way(found: Found) -> None:
    of(found, "data-1")["database"]["lowest_compatible"] = 2
    said = text(found)
    assert "rollback: none, the database's schema is too new for 1.0.0" in said
    assert "but no rollback is possible: the database's schema is too new for 1.0.0." in said


def test_a_database_that_does_not_answer_leaves_it_open(found: Found) -> None:
    of(found, "data-1")["database"] = {"error": "the database system is starting up"}
    said = text(found)
    assert "rollback: unknown, the database does not answer" in said
    assert "does not report its schema: the database system is starting up" in said


def test_hosts_that_were_not_asked_are_not_promised(found: Found) -> None:
    limit(found, "edge-1", "app-1", "data-1")
    said = text(found)
    assert WARM not in said
    assert "not warm: app-2 was not checked or did not answer" in said
    assert problems(found) == []
    retired(found)
    assert "a minute or two; unknown for app-2\n" in text(found)
    limit(found, "app-1")
    assert "rollback: unknown, the database was not checked" in text(found)


def test_a_release_that_is_gone_is_no_way(found: Found, tmp_path: Path) -> None:
    (tmp_path / "1.0.0" / "manifest.json").unlink()
    said = text(found)
    assert "rollback: none, 1.0.0 is no longer on this jump host" in said
    assert "\nFirst: import the bundle of 1.0.0 again\nNext: " in said


def test_a_newer_release_is_offered(found: Found) -> None:
    found |= {"release": "1.2.0", "serial": 3}
    said = text(found)
    assert "release 1.2.0 is ready to upgrade to" in said
    assert "upgrade.yml --check" in said


def test_a_repair_is_done_by_the_release_that_serves(found: Found) -> None:
    found |= {"release": "1.2.0", "serial": 3}
    one_of(found, "data-1", "postgres")["state"] = "exited"
    said = text(found)
    assert "/1.1.0 && ansible-playbook playbooks/install.yml --limit data-1" in said


def test_a_standby_that_is_gone_is_told_and_not_that_it_cannot_be_scraped(found: Found) -> None:
    remove(found, "app-2", "app-blue")
    down = {"job": "app", "host": "app-2", "instance": "app-2:8001", "colour": "blue"}
    of(found, "mon-1")["answers"]["targets"]["down"] = [{**down, "error": "connection refused"}]
    told = problems(found)
    assert told == ["the standby cannot serve at once: app-blue is missing on app-2"]
    assert report(found)["verdict"] == "warning"


def test_a_standby_that_was_not_made_again_is_told(found: Found) -> None:
    """A change of settings ended after its switch, before the standby was recreated."""
    edge = found["edge"]
    edge |= {"standby": None}
    said = "the standby (1.0.0, to be warm until 2026-01-03T00:00:00Z) was not created again"
    assert said in text(found)
    edge |= {"warm_until": None}
    assert "was not created again" not in text(found)
