"""Each bad release is stopped by its gate before it serves, and no request fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from scripts.journey import Journey, recap
from scripts.lab import Done
from scripts.load import Load
from scripts.roundtrip import sql
from tests.e2e.support import HOSTS, MARKER, WATCHED, watching
from tests.e2e.test_4_install import secrets_of
from tests.e2e.upgrades import (
    APP_HOSTS,
    NO_PREFLIGHT,
    agent,
    holding,
    nothing_is_left_over,
    offer,
    serves,
    services,
)


@dataclass(frozen=True)
class Bad:
    """A patch of tests/releases, and the words that stop it."""

    patch: str
    version: str
    serial: int
    step: str
    words: tuple[str, ...]
    options: tuple[str, ...] = ()


#: One for each gate; tests/soak/test_stopped.py has others.
BAD = [
    Bad(
        "bad-ready",
        "1.0.2",
        4,
        "colour",
        ("airlift-app-green is not ready after 25 s: models: not loaded",),
        # Readiness answers after a few requests.
        ("-e", "app_ready_seconds=25"),
    ),
    Bad("bad-smoke", "1.0.4", 6, "preview", ("POST /items answered 500 instead of 201",)),
    Bad(
        "bad-migration",
        "1.0.5",
        7,
        "schema",
        ('the migration failed and was undone: relation "owners" does not exist',),
    ),
]


def last_sentence(done: Done) -> str:
    """Return Ansible's last error, in one line: what an operator reads."""
    return " ".join(done.output.rpartition("failed: [edge-1]")[2].split())


@pytest.fixture(scope="module")
def load(installed: Journey) -> Iterator[Load]:
    """Clients that send requests during all tests; the last test checks their results."""
    with installed.load(12) as load:
        yield load
    assert load.result.failed == 0, str(load.result)


@pytest.fixture(scope="module", params=BAD, ids=lambda bad: bad.patch)
def stopped(request: pytest.FixtureRequest, installed: Journey, load: Load) -> tuple[Bad, Done]:
    """A site that was asked to upgrade to a bad release."""
    return request.param, upgrade(installed, load, request.param)


def upgrade(site: Journey, load: Load, bad: Bad) -> Done:
    """Import a bad release, and run the upgrade to it."""
    load.phase(bad.patch)
    with site.timed(bad.patch):
        site.bring(patch=bad.patch, version=bad.version, serial=bad.serial)
        # The release that passes most gates also shows that no key is ever in an argument.
        watched = watching(site.lab, ["jump", *HOSTS]) if bad.step == "preview" else None
        options = () if watched else NO_PREFLIGHT
        with watched or nullcontext():
            return site.play("upgrade", *options, *bad.options, check=False)


def test_it_is_stopped_with_one_clear_sentence(stopped: tuple[Bad, Done]) -> None:
    bad, done = stopped
    assert done.code == 2, done.output[-3000:]
    said = last_sentence(done)
    for words in bad.words:
        assert words in said
    assert "lab still serves 1.0.0 (blue). No cleanup is needed." in said


def test_the_old_colour_serves_and_nothing_is_left(
    installed: Journey, stopped: tuple[Bad, Done]
) -> None:
    bad, _ = stopped
    said = serves(installed, "1.0.0", "blue")
    assert said["standby"] is None
    assert said["last_run"]["event"] == "failed"
    assert said["last_run"]["data"]["release"] == bad.version
    records = agent(installed, "journal", "--json")["records"]
    failed = [record["step"] for record in records if record["event"] == "failed"]
    assert failed[-2:] == [bad.step, "upgrade"]
    for host in APP_HOSTS:
        assert not {"app-green", "worker-green"} & set(services(installed, host))
    nothing_is_left_over(installed)


def test_the_database_is_as_before(installed: Journey, stopped: tuple[Bad, Done]) -> None:
    assert stopped
    assert sql(installed, "SELECT max(version) FROM schema_version") == ["2"]
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'items'"
    assert "owner" not in sql(installed, columns)


def test_status_says_why(installed: Journey, stopped: tuple[Bad, Done]) -> None:
    bad, _ = stopped
    if bad.step != "preview":
        pytest.skip("one release is enough: it reads the journal")
    said = " ".join(installed.status().output.split())
    assert f"last run: upgrade to {bad.version}, failed at" in said
    assert (
        "Site lab runs release 1.0.0: what serves is as it should be, but the last upgrade, "
        f"to {bad.version}, failed: " in said
    )
    # From the directory of the active release, whose state it confirms.
    assert "Next: cd /opt/airlift/releases/1.0.0 && ./venv/bin/ansible-playbook" in said


@pytest.mark.parametrize("host", ["jump", *HOSTS])
def test_no_process_was_given_a_secret(
    installed: Journey, stopped: tuple[Bad, Done], host: str
) -> None:
    bad, _ = stopped
    if bad.step != "preview":
        pytest.skip("one release is enough")
    seen = installed.lab.read(host, WATCHED)
    assert MARKER.encode() in seen
    assert [name for name, value in secrets_of(installed).items() if value.encode() in seen] == []


# ---------------------------------------------------------------- a good release at a bad moment
@pytest.fixture(scope="module")
def offered(installed: Journey, load: Load) -> Journey:
    """Release 1.1.0 is on the jump host, imported from a delta."""
    load.phase("offered")
    offer(installed)
    return installed


def test_a_plan_changes_nothing(offered: Journey) -> None:
    before = [agent(offered, "show"), *(services(offered, host) for host in HOSTS)]
    done = offered.play("upgrade", "--check")
    said = " ".join(done.output.split())
    for words in (
        "release 1.0.0 (serial 2) to 1.1.0",
        "schema from 2 to 3; supports releases of schema 1 or later, so 1.0.0 keeps serving",
        "new colour green on app-1, app-2; blue keeps serving",
        "rollback blue stays warm for 24 h: rollback.yml",
    ):
        assert words in said
    after = [agent(offered, "show"), *(services(offered, host) for host in HOSTS)]
    for one in (before[0], after[0]):
        # What is seen each second has a time of its own.
        for seen in ("now", "watcher", "replicas", "standby_replicas"):
            del one[seen]
    assert after == before
    assert sql(offered, "SELECT max(version) FROM schema_version") == ["2"]


def test_a_migration_does_not_wait_for_a_lock_that_a_client_holds(
    offered: Journey, load: Load
) -> None:
    load.phase("lock held")
    with holding(offered, "LOCK TABLE items IN ROW EXCLUSIVE MODE"):
        done = offered.play("upgrade", *NO_PREFLIGHT, check=False)
    assert done.code == 2
    assert "another session holds a table that the migration needs" in last_sentence(done)
    assert "lab still serves 1.0.0 (blue). No cleanup is needed." in last_sentence(done)
    serves(offered, "1.0.0", "blue")
    assert sql(offered, "SELECT max(version) FROM schema_version") == ["2"]
    assert recap(done.output).failed == 1
