"""The status report: one table, one sentence, one command, whatever is down."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

EXPECTED = {
    "dmz": ["edge"],
    "app": ["app-COLOUR", "worker-COLOUR"],
    "data": ["postgres"],
    "monitor": ["prometheus", "grafana"],
    "all": ["node-exporter"],
}
COMPONENTS = {
    name: {"manifest_digest": f"sha256:m-{name}", "config_digest": f"sha256:c-{name}"}
    for name in ("app", "nginx", "postgres", "prometheus", "node-exporter")
}
COMPONENT_OF = {
    "edge": "nginx",
    "worker-blue": "app",
    "worker-green": "app",
    "app-blue": "app",
    "app-green": "app",
}
RUNS = {
    "edge-1": ["edge", "node-exporter"],
    "app-1": ["app-blue", "worker-blue", "node-exporter"],
    "data-1": ["postgres", "node-exporter"],
    "mon-1": ["prometheus", "node-exporter"],
}
EDGE = {
    "installed": True,
    "active": "blue",
    "standby": None,
    "release": "1.0.0",
    "serial": 1,
    "generation": 3,
    "live_generation": 3,
    "served_generation": 3,
    "since": "2026-01-01T00:00:00Z",
    "previous_release": None,
    "previous_serial": None,
    "warm_until": None,
    "lease": None,
    "unfinished": [],
    "last_run": None,
    "now": "2026-01-02T00:00:00Z",
}
OLD = {"app": {"manifest_digest": "sha256:m-old", "config_digest": "sha256:c-old"}}


def container(service: str) -> dict[str, Any]:
    component = COMPONENT_OF.get(service, service)
    labels = {"airlift.service": service, "airlift.component": component, "airlift.version": "9"}
    if component == "app":
        labels |= {"airlift.release": "1.0.0"}
    if service.startswith("app-"):
        labels |= {"airlift.colour": service.removeprefix("app-")}
    return {
        "Labels": labels,
        "ImageID": f"sha256:c-{component}",
        "State": "running",
        "Status": "Up 5 minutes (healthy)",
    }


@pytest.fixture
def findings(tmp_path: Path) -> dict[str, Any]:
    return {
        "releases_dir": str(tmp_path),
        "databases": [{"stdout": json.dumps({"lowest_compatible": 1})}],
        "site": "acme",
        "release": "1.0.0",
        "serial": 1,
        "components": COMPONENTS,
        "absent": {"grafana": {"reason": "no package"}},
        "expected": EXPECTED,
        "zones": {"dmz": ["edge-1"], "app": ["app-1"], "data": ["data-1"], "monitor": ["mon-1"]},
        "asked": list(RUNS),
        "engines": {
            host: {"host_info": {}, "containers": [container(name) for name in names]}
            for host, names in RUNS.items()
        },
        "edges": [EDGE],
        "ready": [{"status": 200, "json": {"status": "ready", "checks": {"postgres": "ok"}}}],
        "command": "ansible-playbook playbooks/",
    }


def report(findings: dict[str, Any]) -> str:
    text: str = plugin("status/filter_plugins/status.py").status_report(findings)
    return text


def test_all_is_well(findings: dict[str, Any]) -> None:
    lines = report(findings).splitlines()
    assert lines[0].split() == ["HOST", "SERVICE", "RELEASE", "COLOUR", "IMAGE", "HEALTH", "SINCE"]
    assert lines[1].split() == ["edge-1", "edge", "9", "-", "ok", "healthy", "5", "minutes"]
    assert "app-blue" in report(findings)
    assert "/health/ready through the edge: ready (postgres ok)" in lines
    assert "absent: grafana: no package" in lines
    assert lines[-2] == "Site acme runs release 1.0.0: everything is as it should be."


def test_a_host_that_is_down_is_named_and_the_rest_is_told(findings: dict[str, Any]) -> None:
    findings["engines"]["app-1"] = {"unreachable": True}
    text = report(findings)
    assert "Site acme needs attention: app-1 cannot be reached over SSH." in text
    assert (
        "Next: bring the host back, then ansible-playbook playbooks/install.yml --limit app-1"
        in text
    )
    assert "postgres" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Status": "Up 1 minute (unhealthy)"}, "postgres on data-1 is unhealthy"),
        ({"State": "exited", "Status": "Exited (1) 2 hours ago"}, "postgres on data-1 is exited"),
        ({"ImageID": "sha256:other"}, "runs another image"),
    ],
)
def test_a_service_in_trouble_is_named(
    findings: dict[str, Any], change: dict[str, str], words: str
) -> None:
    findings["engines"]["data-1"]["containers"][0].update(change)
    assert words in report(findings)


def test_a_missing_service_is_named(findings: dict[str, Any]) -> None:
    del findings["engines"]["app-1"]["containers"][0]
    assert "app-blue is missing on app-1" in report(findings)


def test_the_other_colour_is_shown_but_not_expected(findings: dict[str, Any]) -> None:
    findings["engines"]["app-1"]["containers"].append(container("app-green"))
    assert "app-green" in report(findings)
    assert "everything is as it should be" in report(findings)


def test_the_image_is_judged_by_the_hosts_image_store(findings: dict[str, Any]) -> None:
    host = findings["engines"]["data-1"]
    host["host_info"] = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    assert "postgres on data-1 runs another image" in report(findings)
    for one in host["containers"]:
        one["ImageID"] = one["ImageID"].replace("c-", "m-")
    assert "everything is as it should be" in report(findings)


def test_a_degraded_service_is_not_well(findings: dict[str, Any]) -> None:
    findings["ready"] = [
        {"status": 200, "json": {"status": "degraded", "checks": {"redis": "down"}}}
    ]
    assert "needs attention: the service is degraded." in report(findings)


def test_an_edge_that_serves_something_else_than_the_disk_holds(findings: dict[str, Any]) -> None:
    stale = {**EDGE, "served_generation": 2}
    findings["edges"] = [stale]
    assert "Nginx serves generation 2, the disk holds 3" in report(findings)


# ---------------------------------------------------------------- runs
def note(
    step: str, event: str = "intent", *, run: str = "r1", seq: int = 1, **data: Any
) -> dict[str, Any]:
    at = "2026-01-02T00:00:00Z"
    return {"step": step, "event": event, "time": at, "run": run, "seq": seq, "data": data}


def test_a_run_that_was_cut_off_is_to_be_started_again(findings: dict[str, Any]) -> None:
    begun = [note("upgrade", release="1.1.0"), note("schema", seq=2)]
    findings["edges"] = [{**EDGE, "unfinished": begun}]
    text = report(findings)
    assert "needs attention: upgrade to 1.1.0 was cut off in step schema: start it again." in text
    last = "Next: ansible-playbook playbooks/upgrade.yml, or rollback.yml to give it up"
    assert text.endswith(last)
    # After the switch there is nothing to give up: a rollback is one like any other.
    findings["edges"] = [{**EDGE, "unfinished": begun, "release": "1.1.0"}]
    assert report(findings).endswith("Next: ansible-playbook playbooks/upgrade.yml")


def test_of_several_that_were_cut_off_the_newest_counts(findings: dict[str, Any]) -> None:
    begun = [
        note("upgrade", release="1.1.0"),
        note("workers", seq=2),
        note("rollback", run="r2", seq=3, release="1.0.0"),
    ]
    findings["edges"] = [{**EDGE, "unfinished": begun}]
    text = report(findings)
    assert "needs attention: rollback to 1.0.0 was cut off: start it again." in text
    assert "upgrade to 1.1.0 was cut off" not in text
    assert text.endswith("Next: ansible-playbook playbooks/rollback.yml")
    findings["edges"][0]["unfinished"].append(note("images", run="r2", seq=4))
    assert "rollback to 1.0.0 was cut off in step images" in report(findings)


def test_what_was_cut_off_stands_before_its_effects(findings: dict[str, Any]) -> None:
    findings["edges"] = [{**EDGE, "unfinished": [note("upgrade", release="1.1.0")]}]
    del findings["engines"]["app-1"]["containers"][1]
    text = report(findings)
    assert "needs attention: upgrade to 1.1.0 was cut off: start it again, and 1 more." in text
    assert "\n  - worker-blue is missing on app-1\n" in text


def test_a_run_at_work_is_left_alone_and_a_dead_one_is_not(findings: dict[str, Any]) -> None:
    lease = {"run": "r1", "owner": "ann", "verb": "upgrade", "epoch": 1, "expires": 1.0}
    begun = [note("upgrade", release="1.1.0"), note("colour", seq=2)]
    busy = {**EDGE, "unfinished": begun, "lease": lease}
    findings["edges"] = [{**busy, "at_work": True}]
    text = report(findings)
    assert "ann is at work: upgrade to 1.1.0 in step colour, since 2026-01-02T00:00:00Z" in text
    assert "cut off" not in text
    assert "Site acme serves release 1.0.0 (blue) while it is worked on." in text
    assert text.endswith("Next: wait; look again with ansible-playbook playbooks/status.yml")
    findings["edges"] = [{**busy, "at_work": False}]
    assert "at work" not in report(findings)
    assert "cut off" in report(findings)


def test_what_is_amiss_while_somebody_is_at_work_is_told(findings: dict[str, Any]) -> None:
    lease = {"run": "r1", "owner": "ann", "verb": "upgrade", "epoch": 1, "expires": 1.0}
    busy = {"unfinished": [note("upgrade", release="1.1.0")], "lease": lease, "at_work": True}
    findings["edges"] = [{**EDGE, **busy}]
    del findings["engines"]["app-1"]["containers"][1]
    assert "\n  - worker-blue is missing on app-1\nNext: wait" in report(findings)


def test_a_long_reason_is_cut_between_words(findings: dict[str, Any]) -> None:
    findings["absent"] = {"grafana": {"reason": "word " * 40}}
    (line,) = [line for line in report(findings).splitlines() if line.startswith("absent")]
    assert line.endswith("word …")
    assert len(line) < 110


def test_why_the_last_run_failed_is_told(findings: dict[str, Any]) -> None:
    failed = note("upgrade", "failed", release="1.1.0", why="no room")
    findings["edges"] = [{**EDGE, "last_run": failed}]
    text = report(findings)
    assert "last run: upgrade to 1.1.0, failed at 2026-01-02T00:00:00Z: no room" in text
    assert "everything is as it should be" in text


# ---------------------------------------------------------------- the way back
@pytest.fixture
def upgraded(findings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A site that green serves as 1.1.0; blue stands by as 1.0.0."""
    for release, components, head in (("1.0.0", OLD, 1), ("1.1.0", COMPONENTS, 2)):
        (tmp_path / release).mkdir()
        manifest = {"components": components, "schema": {"head": head}}
        (tmp_path / release / "manifest.json").write_text(json.dumps(manifest))
    edge = {**EDGE, "active": "green", "standby": "blue", "release": "1.1.0", "serial": 2}
    edge |= {"previous_release": "1.0.0", "previous_serial": 1}
    findings["edges"] = [edge | {"warm_until": "2026-01-03T00:00:00Z"}]
    findings |= {"release": "1.1.0", "serial": 2}
    app = findings["engines"]["app-1"]
    app["containers"][0]["ImageID"] = "sha256:c-old"
    app["containers"] += [container("app-green"), container("worker-green")]
    for one in app["containers"][-2:]:
        one["ImageID"] = "sha256:c-app"
    del app["containers"][1]
    return findings


def test_the_standby_is_the_way_back_while_it_is_warm(upgraded: dict[str, Any]) -> None:
    text = report(upgraded)
    assert "way back: 1.0.0 (blue) is warm until 2026-01-03T00:00:00Z: seconds" in text
    assert "everything is as it should be" in text
    assert "other" not in text


def test_a_rollback_is_not_rolled_back(upgraded: dict[str, Any]) -> None:
    upgraded["edges"][0] |= {"release": "1.0.0", "serial": 1}
    upgraded["edges"][0] |= {"previous_release": "1.1.0", "previous_serial": 2}
    words = "way back: none further, the rollback led here; forward: 1.1.0"
    assert f"{words} (blue, warm until 2026-01-03T00:00:00Z)\n" in report(upgraded)
    upgraded["edges"][0]["standby"] = None
    assert f"{words}\n" in report(upgraded)


def test_a_window_that_is_over_says_so(upgraded: dict[str, Any]) -> None:
    upgraded["edges"][0]["warm_until"] = "2026-01-01T12:00:00Z"
    assert "(over; retire.yml stops it)" in report(upgraded)


def test_a_standby_that_is_down_is_a_longer_way(upgraded: dict[str, Any]) -> None:
    upgraded["engines"]["app-1"]["containers"][0] |= {"State": "exited", "Status": "Exited (0)"}
    assert "way back: 1.0.0, from its images" in report(upgraded)


def test_a_schema_that_is_too_new_closes_the_way(upgraded: dict[str, Any]) -> None:
    upgraded["databases"] = [{"stdout": json.dumps({"lowest_compatible": 2})}]
    assert "way back: none, the database's schema is too new for 1.0.0" in report(upgraded)


def test_a_release_that_is_gone_is_no_way(upgraded: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "1.0.0" / "manifest.json").unlink()
    assert "way back: none, 1.0.0 is no longer on this jump host" in report(upgraded)


def test_a_newer_release_is_offered(upgraded: dict[str, Any]) -> None:
    upgraded |= {"release": "1.2.0", "serial": 3}
    text = report(upgraded)
    assert "release 1.2.0 is here and can be upgraded to" in text
    assert "upgrade.yml --check" in text


def test_a_repair_is_done_by_the_release_that_serves(upgraded: dict[str, Any]) -> None:
    upgraded |= {"release": "1.2.0", "serial": 3}
    upgraded["engines"]["data-1"]["containers"][0]["State"] = "exited"
    assert "/1.1.0 && ansible-playbook playbooks/install.yml --limit data-1" in report(upgraded)


def test_a_fresh_site_is_told_to_install(findings: dict[str, Any]) -> None:
    findings["engines"] = {host: {"msg": "no docker", "failed": True} for host in RUNS}
    findings["edges"] = [{"rc": 2, "msg": "no such file"}]
    findings["ready"] = [{"status": -1}]
    text = report(findings)
    assert "Site acme is not installed yet." in text
    assert text.endswith("Next: ansible-playbook playbooks/install.yml")


def test_a_limited_run_speaks_of_the_hosts_asked(findings: dict[str, Any]) -> None:
    limited = deepcopy(findings)
    limited["asked"], limited["edges"], limited["ready"] = ["data-1"], [], []
    text = report(limited)
    assert "the hosts asked are as it should be" not in text
    assert "app-1" not in text
