"""Two upgrades and two rollbacks under load, with the controller killed in every step of one."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import pytest

from scripts.journey import Journey, ended, recap
from scripts.lab import Done
from scripts.load import Result
from scripts.roundtrip import Served, sql
from tests.e2e.support import HOSTS
from tests.e2e.upgrades import (
    APP_HOSTS,
    NO_PREFLIGHT,
    agent,
    kill_in,
    nothing_is_left_over,
    offer,
    serves,
    services,
)

#: Where the first upgrade is killed: the step, and how many seconds after it began.
KILLS = [
    ("images", 0.0),
    ("backup", 1.0),
    ("schema", 1.0),
    ("colour", 1.5),
    ("preview", 0.0),
    ("switch", 0.0),
    ("workers", 1.5),
    ("finish", 0.3),
]
#: Where the second rollback, from the images, is killed.
BACK_KILLS = [("colour", 1.5), ("workers", 1.5)]

# The round trip is one fixture, and a long one.
pytestmark = pytest.mark.timeout(3600)


@dataclass
class Trip:
    """What happened."""

    #: Operation, intended step, how it ended, step in the journal, output of status.
    killed: list[tuple[str, str, Done, str, str]] = field(default_factory=list)
    done: dict[str, Done] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    #: What the agent and the engines reported after each part.
    refused: Done | None = None
    result: Result | None = None


def status(journey: Journey) -> str:
    """Return the output of status in one line."""
    return " ".join(journey.status().output.split())


def kill_in_each(journey: Journey, trip: Trip, verb: str, kills: list[tuple[str, float]]) -> None:
    """Start a playbook repeatedly; kill each run in the next step."""
    for step, seconds in kills:
        killed, where = kill_in(journey, verb, step, seconds)
        # Each run of status takes seconds, so only the most different states are checked.
        said = status(journey) if step in {"backup", "colour", "workers"} else ""
        trip.killed.append((verb, step, killed, where, said))


def play(journey: Journey, trip: Trip, name: str, verb: str, *options: str) -> None:
    """Run a playbook and note how it went."""
    start = time.monotonic()
    trip.done[name] = journey.play(verb, *options)
    trip.seconds[name] = time.monotonic() - start


@pytest.fixture(scope="module")
def trip(installed: Journey) -> Trip:
    """The whole of it, under one load."""
    journey, trip = installed, Trip()
    offer(journey)
    for host in APP_HOSTS:
        # An earlier, refused upgrade may have delivered this release; the step is tested here.
        journey.lab.console(host, "docker image rm --force airlift/app:1.1.0", check=False)
    journey.feed()
    with journey.load(30) as load:
        begun = time.monotonic()
        load.phase("steady")
        time.sleep(15)
        load.phase("upgrade, killed")
        kill_in_each(journey, trip, "upgrade", KILLS)
        play(journey, trip, "first upgrade", "upgrade")
        serves(journey, "1.1.0", "green")
        nothing_is_left_over(journey)
        trip.statuses["upgraded"] = status(journey)
        # An operator cleans up; the standby's containers run, so the rollback images stay.
        for host in APP_HOSTS:
            journey.lab.console(host, "docker container prune --force")
        load.phase("rollback")
        with Served(journey, "1.0.0") as served:
            play(journey, trip, "first rollback", "rollback")
        assert served.seconds is not None
        trip.seconds["rollback until it serves"] = served.seconds
        serves(journey, "1.0.0", "blue")
        trip.statuses["rolled back"] = status(journey)
        load.phase("upgrade")
        play(journey, trip, "second upgrade", "upgrade", *NO_PREFLIGHT)
        serves(journey, "1.1.0", "green")
        load.phase("install")
        play(journey, trip, "install", "install", *NO_PREFLIGHT)
        load.phase("refused")
        sql(journey, "INSERT INTO schema_version VALUES (4, 3)")
        trip.refused = journey.play("rollback", *NO_PREFLIGHT, check=False)
        sql(journey, "DELETE FROM schema_version WHERE version = 4")
        load.phase("retire")
        play(journey, trip, "retire", "retire", *NO_PREFLIGHT)
        trip.statuses["retired"] = status(journey)
        load.phase("cold rollback, killed")
        kill_in_each(journey, trip, "rollback", BACK_KILLS)
        play(journey, trip, "second rollback", "rollback")
        load.phase("steady")
        # Enough requests to see one failure in ten thousand, however short the round trip was.
        time.sleep(max(5, 350 - (time.monotonic() - begun)))
    trip.result = load.result
    print(load.result)
    print(json.dumps(trip.seconds, indent=1))
    return trip


def result(trip: Trip) -> Result:
    """Return what the load found."""
    assert trip.result is not None
    return trip.result


def test_no_request_failed(trip: Trip) -> None:
    assert result(trip).failed == 0, str(result(trip))
    assert result(trip).sent >= 10_000, str(result(trip))


def test_both_releases_served(trip: Trip) -> None:
    assert set(result(trip).total.served) == {"blue 1.0.0", "green 1.1.0"}


def test_every_item_is_stored_once(installed: Journey, trip: Trip) -> None:
    found = result(trip)
    query = f"SELECT name FROM items WHERE name LIKE 'load-{found.run}-%'"
    stored = sql(installed, query)
    assert len(stored) == len(set(stored))
    assert set(stored) == found.accepted_items == found.attempted_items


def test_every_job_ended_once(installed: Journey, trip: Trip) -> None:
    jobs = result(trip).accepted_jobs
    assert len(jobs) > 100
    listed = ",".join(f"'{job}'" for job in jobs)
    deadline = time.monotonic() + 60
    query = f"SELECT state, count(*) FROM jobs WHERE id IN ({listed}) GROUP BY state"
    while (states := sql(installed, query)) != [f"succeeded|{len(jobs)}"]:
        assert time.monotonic() < deadline, states
        time.sleep(1)
    results = f"SELECT count(*) FROM job_results WHERE job_id IN ({listed})"
    assert sql(installed, results) == [str(len(jobs))]


def test_both_workers_did_some_of_them(installed: Journey, trip: Trip) -> None:
    """Release 1.1.0 counts repeated records, 1.0.0 does not."""
    listed = ",".join(f"'{job}'" for job in result(trip).accepted_jobs)
    counted = f"""SELECT result->'records' ? 'repeated', count(*) FROM (
        SELECT result::jsonb AS result FROM job_results WHERE job_id IN ({listed})) AS x
        GROUP BY 1"""
    assert [row.split("|")[0] for row in sorted(sql(installed, counted))] == ["f", "t"]


def test_the_controller_was_killed_in_every_step(trip: Trip) -> None:
    for _, step, killed, _, _ in trip.killed:
        assert killed.code == 255, f"{step}: {killed.output[-2000:]}"
        assert not ended(killed.output), step
    # The agent finishes its switch, whichever process is killed on the jump host.
    seen = {where for _, _, _, where, _ in trip.killed}
    assert seen >= {"images", "backup", "schema", "colour", "workers", "finish"}


def test_status_told_the_truth_in_between(trip: Trip) -> None:
    asked = [one for one in trip.killed if one[4]]
    assert len(asked) >= 5
    for verb, step, _, where, said in asked:
        release = "1.1.0" if verb == "upgrade" else "1.0.0"
        place = f" in step {where}" if where else ""
        assert f"{verb} to {release} was interrupted{place}; resume with {verb}.yml" in said, step
        # The printed command is complete and can be copied.
        following = said.rpartition("Next: ")[2]
        assert f"--vault-id=lab@/opt/airlift/sites/lab.vault-password playbooks/{verb}" in following
        assert "in progress" not in said
    backup = next(said for _, step, _, _, said in asked if step == "backup")
    assert "release 1.0.0 (serial 2), blue active" in backup


def test_the_same_command_finished_the_work(trip: Trip) -> None:
    for name, done in trip.done.items():
        assert recap(done.output).failed == 0, name
    assert "is no longer running; taking its lock over" in trip.done["first upgrade"].output


def test_an_upgraded_site_is_what_install_would_make(trip: Trip) -> None:
    """A repeated installation changes nothing either."""
    output = trip.done["install"].output
    assert [line for line in output.splitlines() if line.startswith("changed:")] == []
    assert recap(output).changed == 0


def test_status_says_what_serves_and_how_to_go_back(trip: Trip) -> None:
    upgraded = trip.statuses["upgraded"]
    assert "release 1.1.0 (serial 10), green active" in upgraded
    assert "rollback: 1.0.0 (blue), warm until" in upgraded
    assert "Site lab runs release 1.1.0: everything is as it should be." in upgraded
    back = trip.statuses["rolled back"]
    assert "release 1.0.0 (serial 2), blue active" in back
    words = (
        "rollback: none (already rolled back); go forward with upgrade.yml to 1.1.0 (green, warm"
    )
    assert words in back
    assert "upgrade.yml --check" in back.rpartition("Next: ")[2]
    assert "rollback: 1.0.0 from its images" in trip.statuses["retired"]


def test_the_way_back_was_seen_to_start_when_it_was_retired(trip: Trip) -> None:
    """On both image stores: a container of its image ran on each app host."""
    step = "Test that the rollback images start"
    lines = [one for one in trip.done["retire"].output.splitlines() if one.startswith(step)]
    assert [", ".join(APP_HOSTS) in one for one in lines] == [True]


def test_a_rollback_that_the_schema_forbids_is_refused(trip: Trip) -> None:
    assert trip.refused is not None
    assert trip.refused.code == 2
    said = " ".join(trip.refused.output.split())
    assert "release 1.0.0 has schema 2; the database has schema 4, which supports releases" in said
    assert recap(trip.refused.output).changed == 0


def test_a_warm_rollback_takes_seconds(trip: Trip) -> None:
    """No limit in seconds: a machine may be slow. No container of the service is started."""
    output = trip.done["first rollback"].output
    assert "which is warm" in output
    assert "Container of app-blue" not in output


def test_the_site_is_as_a_rollback_leaves_it(installed: Journey, trip: Trip) -> None:
    assert trip
    said = serves(installed, "1.0.0", "blue")
    assert (said["standby"], said["previous_release"]) == ("green", "1.1.0")
    assert agent(installed, "show")["last_run"]["event"] == "done"
    nothing_is_left_over(installed)


def test_current_and_previous_images_are_kept_and_no_other(installed: Journey, trip: Trip) -> None:
    """None of the bad releases' images, which all came to these hosts, is left."""
    assert trip
    kept = set()
    for release in ("1.0.0", "1.1.0"):
        manifest = installed.lab.read("jump", f"/opt/airlift/releases/{release}/manifest.json")
        component = json.loads(manifest)["components"]["app"]
        kept |= {component["config_digest"], component["manifest_digest"]}
    for host in APP_HOSTS:
        form = "docker images --no-trunc --format '{{.Repository}} {{.ID}}' | grep '/app '"
        lines = installed.lab.console(host, form).output.splitlines()
        found = {line.split()[1] for line in lines}
        assert len(found) == 2
        assert found <= kept


def test_every_backup_is_from_before_the_migrations(installed: Journey, trip: Trip) -> None:
    """Later runs made no backup, because it would displace the one that is needed."""
    assert trip
    utc = "to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    migrated = sql(installed, f"SELECT {utc} FROM schema_version WHERE version = 3")[0]
    folder = "/var/lib/airlift/backup"
    script = f"cd {folder} && for f in 1.0.0-to-1.1.0-*.json; do cat $f; printf '\\036'; done"
    records = installed.lab.console("data-1", script).output.split("\036")[:-1]
    assert 1 <= len(records) <= 3
    for record in map(json.loads, records):
        assert record["created"] <= migrated
        assert record["restored"] is True
        done = installed.lab.console("data-1", f"sha256sum {folder}/{record['dump']}")
        assert done.output.split()[0] == record["sha256"]


@pytest.mark.parametrize("host", HOSTS)
def test_nothing_runs_that_should_not(installed: Journey, trip: Trip, host: str) -> None:
    assert trip
    found = services(installed, host)
    assert {state for state, _ in found.values()} == {"running"}, found
    assert "worker-green" not in found
