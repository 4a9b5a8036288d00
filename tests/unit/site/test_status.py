"""The status report: one table, one sentence, one command, whatever is down."""

import json
from copy import deepcopy
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

EXPECTED = {
    "dmz": ["edge"],
    "app": ["app-COLOUR", "worker"],
    "data": ["postgres"],
    "monitor": ["prometheus", "grafana"],
    "all": ["node-exporter"],
}
COMPONENTS = {
    name: {"manifest_digest": f"sha256:m-{name}", "config_digest": f"sha256:c-{name}"}
    for name in ("app", "nginx", "postgres", "prometheus", "node-exporter")
}
COMPONENT_OF = {"edge": "nginx", "worker": "app", "app-blue": "app", "app-green": "app"}
RUNS = {
    "edge-1": ["edge", "node-exporter"],
    "app-1": ["app-blue", "worker", "node-exporter"],
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
}


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
def findings() -> dict[str, Any]:
    return {
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
        "edges": [{"rc": 0, "stdout": json.dumps(EDGE)}],
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
    findings["edges"] = [{"rc": 0, "stdout": json.dumps(stale)}]
    assert "Nginx serves generation 2, the disk holds 3" in report(findings)


def test_a_run_that_was_cut_off_is_told_and_one_at_work_is_left_alone(
    findings: dict[str, Any],
) -> None:
    left = {"step": "switch", "event": "intent", "time": "2026-01-02T00:00:00Z", "run": "r1"}
    cut_off = {**EDGE, "lease": None, "unfinished": [left]}
    findings["edges"] = [{"rc": 0, "stdout": json.dumps(cut_off)}]
    assert "a run was cut off at 2026-01-02T00:00:00Z in step switch" in report(findings)
    lease = {"run": "r1", "owner": "ann", "verb": "upgrade", "epoch": 1, "expires": 1.0}
    findings["edges"] = [{"rc": 0, "stdout": json.dumps({**cut_off, "lease": lease})}]
    text = report(findings)
    assert "ann is at work: upgrade, run r1" in text
    assert "cut off" not in text


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
