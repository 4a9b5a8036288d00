"""The status report has one table, one verdict and one command, whatever is down."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.site.statuskit import (
    RUNS,
    container,
    limit,
    note,
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


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """Return a healthy site."""
    return site(tmp_path)


def test_all_is_well(found: Found) -> None:
    lines = text(found).splitlines()
    assert lines[0].split() == ["HOST", "SERVICE", "RELEASE", "COLOUR", "IMAGE", "HEALTH", "UPTIME"]
    assert lines[1].split() == ["edge-1", "edge", "9", "-", "ok", "healthy", "5", "minutes"]
    assert "/health/ready through the edge: ready (postgres ok, redis ok)" in lines
    assert "absent: grafana: no package" in lines
    assert lines[-2] == "Site acme runs release 1.0.0: everything is as it should be."
    assert report(found)["verdict"] == "ok"


def test_the_same_content_is_there_for_machines(found: Found) -> None:
    one_of(found, "data-1", "redis").update(state="exited", said="Bad file format")
    said = report(found)
    assert (said["format"], said["verdict"], said["release"]) == (1, "attention", "1.0.0")
    assert said["sentence"] in text(found)
    assert said["problems"] == [
        {
            "level": "problem",
            "host": "data-1",
            "found": "redis on data-1 is exited",
            "error": "Bad file format",
            "before": "",
            "fix": "ansible-playbook playbooks/install.yml --limit data-1",
        }
    ]
    assert text(found).endswith(f"Next: {said['next']}")
    (row,) = [row for row in said["services"]["data-1"] if row["service"] == "redis"]
    assert (row["health"], row["image"]) == ("exited", "ok")
    assert (row["since"], row["uptime_seconds"]) == ("down 5 minutes", None)
    (row,) = [row for row in said["services"]["data-1"] if row["service"] == "postgres"]
    assert (row["since"], row["uptime_seconds"]) == ("5 minutes", 300)
    assert set(said["services"]) == set(RUNS)


#: Keys that programs may rely on: they are only added to.
KEYS = {
    "format": int,
    "site": str,
    "verdict": str,
    "sentence": str,
    "first": str,
    "next": str,
    "cancel": str,
    "since": str,
    "release": str,
    "serial": int,
    "active": str,
    "this_directory": str,
    "asked": list,
    "not_asked": list,
    "facts": list,
    "problems": list,
    "rollback": dict,
    "services": dict,
}


@pytest.mark.parametrize("broken", [False, True])
def test_the_report_for_machines_keeps_its_form(found: Found, broken: bool) -> None:
    if broken:
        found["hosts"]["app-1"] = {"unreachable": True}
        found["edge"]["last_run"] = note("install", "failed", release="1.0.0", why="no room")
    said = report(found)
    assert {name: type(said[name]) for name in KEYS} == KEYS
    assert said["standby"] is None
    assert set(said["rollback"]) == {"warm", "warm_until", "line"}
    for one in said["problems"]:
        assert {name: type(value) for name, value in one.items()} == dict.fromkeys(
            ("level", "host", "found", "error", "before", "fix"), str
        )
    levels = [one["level"] for one in said["problems"]]
    assert levels == (["problem", "warning"] if broken else [])
    columns = {"service", "release", "colour", "image", "health", "since", "uptime_seconds"}
    assert all(set(row) == columns for rows in said["services"].values() for row in rows)


# ---------------------------------------------------------------- hosts
def test_a_host_that_is_down_is_named_and_the_rest_is_told(found: Found) -> None:
    found["hosts"]["app-1"] = {"unreachable": True}
    said = text(found)
    assert "Site acme needs attention: app-1 cannot be reached over SSH." in said
    following = "ansible-playbook playbooks/install.yml --limit app-1"
    assert said.endswith(f"\nFirst: bring the host back\nNext: {following}")
    assert report(found)["first"] == "bring the host back"
    assert report(found)["next"] == following
    assert "postgres" in said


def test_an_engine_that_is_down_is_told_with_its_words(found: Found) -> None:
    of(found, "app-1")["engine"] = {"error": "cannot connect to the Docker daemon"}
    of(found, "app-1")["containers"] = []
    (only,) = report(found)["problems"]
    assert only["found"] == "no container engine answers on app-1"
    assert only["error"] == "cannot connect to the Docker daemon"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"forwarding": False}, "app-2 does not forward packets (net.ipv4.ip_forward is 0)"),
        (
            {"engine_rules": {"missing": [8001, 8003], "blocked": False}},
            "the container engine's rules for port 8001, 8003 are missing on app-2",
        ),
        (
            {"engine_rules": {"missing": [], "blocked": True}},
            "the container engine's rules are missing on app-2",
        ),
        (
            {"firewall": {"table": "missing", "enabled": True}},
            "the firewall table of app-2 is missing",
        ),
        ({"firewall": {"table": "different", "enabled": True}}, "of app-2 differs from the rules"),
        ({"firewall": {"table": "", "enabled": False}}, "would not be loaded at boot"),
        ({"disks": [{"path": "/data", "percent": 95}]}, "/data on app-2 is 95 % full"),
    ],
)
def test_what_a_host_lets_through_is_the_cause(found: Found, change: Found, words: str) -> None:
    of(found, "app-2").update(change)
    of(found, "edge-1")["answers"]["app-blue on app-2"] |= {"status": 0, "error": "timed out"}
    of(found, "edge-1")["answers"]["edge"] |= {"status": 503}
    first, *effects = problems(found)
    assert words in first
    assert effects == [
        "the edge cannot reach app-blue on app-2",
        "the service is not ready through the edge",
    ]
    assert words in text(found).partition("needs attention: ")[2].splitlines()[0]
    if "disks" in change:
        last = "\nFirst: free space on app-2\nNext: ansible-playbook playbooks/status.yml"
        assert text(found).endswith(last)
    else:
        assert text(found).endswith("playbooks/install.yml --limit app-2")


# ---------------------------------------------------------------- containers
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": "unhealthy"}, "postgres on data-1 is unhealthy"),
        ({"state": "exited"}, "postgres on data-1 is exited"),
        ({"state": "paused"}, "postgres on data-1 is paused"),
        ({"image": "sha256:other"}, "postgres on data-1 runs another image"),
        ({"restart_policy": "no"}, "postgres on data-1 would not start after a reboot"),
    ],
)
def test_a_service_in_trouble_is_named(found: Found, change: Found, words: str) -> None:
    one_of(found, "data-1", "postgres").update(change)
    (only,) = problems(found)
    assert words in only


def test_a_restart_loop_is_told_while_the_engine_calls_it_running(found: Found) -> None:
    redis = one_of(found, "data-1", "redis")
    redis |= {"state": "starting", "restarts": 3, "seconds": 2, "said": "Bad file format"}
    said = text(found)
    assert "redis on data-1 keeps restarting (3 times so far): Bad file format." in said
    # It restarted, and has been stable since.
    redis |= {"state": "healthy", "seconds": 4000}
    assert problems(found) == []


def test_a_missing_service_is_named(found: Found) -> None:
    remove(found, "app-1", "app-blue")
    assert "app-blue is missing on app-1" in text(found)


def test_the_other_colour_is_shown_but_not_expected(found: Found) -> None:
    of(found, "app-1")["containers"].append(container("app-green"))
    assert "app-green" in text(found)
    assert "everything is as it should be" in text(found)


def test_the_image_is_judged_by_the_hosts_image_store(found: Found) -> None:
    said = of(found, "data-1")
    said["engine"]["store"] = "containerd"
    assert "postgres on data-1 runs another image" in text(found)
    for one in said["containers"]:
        one["image"] = one["image"].replace("c-", "m-")
    assert "everything is as it should be" in text(found)


def test_only_effects_of_what_is_down_are_left_out(found: Found) -> None:
    one_of(found, "app-1", "app-blue")["state"] = "paused"
    answers = of(found, "edge-1")["answers"]
    answers["app-blue on app-1"] |= {"status": 0, "error": "timed out"}
    down = {"job": "app", "host": "app-1", "instance": "app-1:8001", "colour": "blue"}
    of(found, "mon-1")["answers"]["targets"]["down"] = [{**down, "error": "timed out"}]
    assert problems(found) == ["app-blue on app-1 is paused"]


# ---------------------------------------------------------------- flows and credentials
def test_a_replica_that_is_not_ready_says_why(found: Found) -> None:
    answers = of(found, "edge-1")["answers"]
    wrong = {"postgres": "not available (timeout)", "redis": "ok"}
    answers["app-blue on app-2"] |= {"status": 503, "ready": "unready", "checks": wrong}
    (only,) = report(found)["problems"]
    assert only["found"] == "app-blue on app-2 is not ready"
    assert only["error"] == "postgres: not available (timeout)"


def test_a_replica_of_another_release_is_named(found: Found) -> None:
    of(found, "edge-1")["answers"]["app-blue on app-2"]["release"] = "0.9.0"
    assert problems(found) == ["app-blue on app-2 answers as release 0.9.0, not 1.0.0"]


def test_a_worker_that_is_not_ready_is_named(found: Found) -> None:
    worker = of(found, "app-1")["answers"]["worker-blue"]
    worker |= {"status": 503, "checks": {"postgres": "password authentication failed"}}
    said = "worker-blue on app-1 is not ready: postgres: password authentication failed"
    assert said in text(found)


def test_a_degraded_service_is_not_well(found: Found) -> None:
    wrong = {"ready": "degraded", "checks": {"redis": "down"}}
    of(found, "edge-1")["answers"]["edge"] |= wrong
    assert "needs attention: the service is degraded." in text(found)
    of(found, "edge-1")["answers"]["app-blue on app-1"] |= wrong
    assert "needs attention: app-blue on app-1 is degraded: redis: down, and 1" in text(found)


def test_a_login_that_is_refused_is_told_though_old_connections_work(found: Found) -> None:
    refused = {"postgres": "password authentication failed", "redis": ""}
    of(found, "app-1")["logins"] = {"app-blue": {"postgres": "", "redis": ""}}
    of(found, "app-2")["logins"] = {"worker-blue": refused}
    (only,) = report(found)["problems"]
    assert only["found"] == "worker-blue on app-2 cannot log in"
    assert only["error"] == "postgres: password authentication failed"


def test_an_exporter_whose_login_is_refused_is_named(found: Found) -> None:
    of(found, "data-1")["answers"]["postgres-exporter"] = {"value": 0.0, "error": ""}
    assert problems(found) == [
        "postgres-exporter on data-1 cannot reach its service, or its login is refused"
    ]


def test_what_prometheus_does_not_reach_is_named(found: Found) -> None:
    targets = of(found, "mon-1")["answers"]["targets"]
    down = {"job": "app", "host": "app-1", "instance": "app-1:8001", "error": "timed out"}
    targets["down"] = [{**down, "colour": "green"}]
    assert problems(found) == [], "this colour is neither active nor standby"
    targets["down"] = [{**down, "colour": "blue"}]
    assert problems(found) == ["prometheus on mon-1 cannot reach app at app-1:8001"]


def test_what_the_watcher_took_out_is_told(found: Found) -> None:
    out = {"colour": "blue", "state": "out", "since": "12:00", "why": "three answers 503"}
    found["edge"] |= {"watcher": {"alive": True}, "replicas": {"app-1": out, "app-2": {}}}
    assert "the edge sends no requests to app-1 since 12:00: three answers 503" in text(found)
    # The cause is a container that is down, and it is reported instead.
    one_of(found, "app-1", "app-blue")["state"] = "paused"
    assert problems(found) == ["app-blue on app-1 is paused"]
    one_of(found, "app-1", "app-blue")["state"] = "healthy"
    found["edge"] |= {"watcher": {"alive": False}, "replicas": {}}
    assert "the watcher on edge-1 does not run" in text(found)


def test_the_cause_of_a_replica_that_is_out_comes_first(found: Found) -> None:
    """The edge refuses connections to it, so a failure from there is no cause."""
    out = {"colour": "blue", "state": "out", "since": "12:00", "why": "no answer"}
    found["edge"] |= {"watcher": {"alive": True}, "replicas": {"app-1": out, "app-2": {}}}
    refused = {"status": 0, "error": "[Errno 111] Connection refused"}
    of(found, "edge-1")["answers"]["app-blue on app-1"] |= refused
    assert problems(found) == ["the edge sends no requests to app-1 since 12:00"]
    assert "Connection refused" not in text(found)
    # Its own host may know the cause.
    wrong = {"postgres": "not available (timeout)"}
    of(found, "app-1")["answers"]["app-blue"] |= {"status": 503, "checks": wrong}
    assert problems(found)[0] == "app-blue on app-1 is not ready"


def test_a_host_that_answers_too_late_is_named(found: Found) -> None:
    found["hosts"]["data-1"] = {"late": 45, "msg": "no answer within 45 s"}
    said = text(found)
    assert "Site acme needs attention: data-1 did not answer within 45 s." in said
    assert "First: check the load of data-1 and the network path to it\n" in said
    # Then the active release is unknown, which is no second problem.
    found["hosts"]["edge-1"] = {"late": 45, "msg": "no answer within 45 s"}
    found["edge"] = found["hosts"]["edge-1"]
    assert "edge-1 did not answer within 45 s" in problems(found)
    assert not [one for one in problems(found) if "does not report" in one]


def test_keys_are_compared_with_the_vault(found: Found) -> None:
    database = of(found, "data-1")["database"]
    database["missing"] = [0]
    words = "the key of client shop is in the vault, but not in the database"
    assert problems(found) == [words]
    # An app host updates the keys in the database.
    assert text(found).endswith("Next: ansible-playbook playbooks/install.yml")
    database |= {"missing": [], "revoked": [0]}
    assert text(found).endswith(
        "\nFirst: remove its entry from app_api_keys\nNext: ansible-playbook playbooks/install.yml"
    )
    database |= {"revoked": [], "unknown": ["airlift-smoke", "old-client"]}
    words = "a key of client old-client is in the database, but not in the vault"
    assert problems(found) == [words]


def test_what_was_set_aside_is_told(found: Found) -> None:
    of(found, "data-1")["set_aside"] = ["/var/lib/airlift/redis/damaged-20261130"]
    assert "redis on data-1 had damaged files and started empty; they are in /var/lib" in text(
        found
    )
    assert report(found)["verdict"] == "ok"


def test_an_edge_that_serves_something_else_than_the_disk_holds(found: Found) -> None:
    found["edge"]["served_generation"] = 2
    assert "Nginx serves generation 2, the disk holds 3" in text(found)


# ---------------------------------------------------------------- which hosts, which release
def test_a_limited_run_says_so_and_compares_with_what_serves(found: Found, tmp_path: Path) -> None:
    upgrade(found, tmp_path)
    # The command runs in another release's directory, as after an alert.
    found |= {"release": "1.2.0", "serial": 3, "components": {}}
    limit(found, "app-2")
    said = text(found)
    assert said.startswith("only 1 of 5 hosts was asked: app-2\n\nHOST")
    assert "Site acme runs release 1.1.0: the hosts asked are as they should be." in said
    assert "another image" not in said
    assert "warm until" not in said.replace("rollback: unknown", ""), "the standby was not checked"
    assert report(found)["not_asked"] == ["edge-1", "app-1", "data-1", "mon-1"]


def test_an_older_directory_is_told(found: Found, tmp_path: Path) -> None:
    upgrade(found, tmp_path)
    found |= {"release": "1.0.0", "serial": 1}
    words = (
        "this directory holds release 1.0.0; images were compared with the active release, 1.1.0"
    )
    assert words in text(found)
    assert problems(found) == []


def test_a_release_that_is_not_here_is_not_compared_with(found: Found) -> None:
    found["edge"] |= {"release": "1.1.0", "serial": 2}
    for host in ("app-1", "app-2"):
        for one in of(found, host)["answers"].values():
            one["release"] = "1.1.0"
        of(found, "edge-1")["answers"][f"app-blue on {host}"]["release"] = "1.1.0"
    said = text(found)
    assert "another image" not in said
    assert "the active release, 1.1.0, is not on this jump host" in said
    assert "\nFirst: import the bundle of 1.1.0 again\nNext: ansible-playbook" in said


def test_an_edge_that_cannot_be_asked_makes_nothing_up(found: Found) -> None:
    found["edge"] = {"unreachable": True, "msg": "timed out"}
    found["hosts"]["edge-1"] = {"unreachable": True}
    for host in ("app-1", "app-2"):
        for one in of(found, host)["containers"]:
            one["service"] = one["service"].replace("blue", "green")
            one["colour"] = one["colour"].replace("blue", "green")
    assert problems(found) == ["edge-1 cannot be reached over SSH"]
    limit(found, "app-1")
    assert "edge-1 does not report what the site serves: timed out" in text(found)


def test_a_fresh_site_is_told_to_install(found: Found) -> None:
    found["hosts"] = {host: {"msg": "no docker"} for host in RUNS}
    found["edge"] = {"msg": "no such file"}
    said = text(found)
    assert "Site acme is not installed yet." in said
    assert said.endswith("Next: ansible-playbook playbooks/install.yml")


def test_a_long_reason_is_cut_between_words(found: Found) -> None:
    found["absent"] = {"grafana": {"reason": "word " * 40}}
    (line,) = [line for line in text(found).splitlines() if line.startswith("absent")]
    assert line.endswith("word …")
    assert len(line) < 110
