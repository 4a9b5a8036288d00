"""Targets come from the inventory, dashboards from their description; rules and metrics agree."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle.builder.images import engine
from tests.unit.app.appkit import image_of
from tests.unit.roles.conftest import ROLES, ROOT, load, plugin

MONITORING = ROLES / "monitoring"
ADDRESSES = {"edge-1": "10.0.1.1", "app-1": "10.0.2.1", "app-2": "10.0.2.2"}
ZONES = {"dmz": ["edge-1"], "app": ["app-2", "app-1"], "data": [], "monitor": []}
PORTS = {"app_blue": 8001, "app_green": 8002, "node_exporter": 9100, "postgres_exporter": 9187}


def targets(job: dict[str, Any], colours: list[str]) -> list[dict[str, Any]]:
    module = plugin("monitoring/filter_plugins/monitoring.py")
    made: list[dict[str, Any]] = module.monitoring_targets(job, ZONES, ADDRESSES, PORTS, colours)
    return made


def test_every_app_host_is_a_target_for_each_colour_that_runs() -> None:
    made = targets({"zone": "app", "port": "app", "colours": "all"}, ["green", "blue"])
    assert [(t["targets"], t["labels"]["host"], t["labels"]["colour"]) for t in made] == [
        (["10.0.2.1:8002"], "app-1", "green"),
        (["10.0.2.2:8002"], "app-2", "green"),
        (["10.0.2.1:8001"], "app-1", "blue"),
        (["10.0.2.2:8001"], "app-2", "blue"),
    ]


def test_only_the_worker_of_the_colour_that_serves_is_a_target() -> None:
    made = targets({"zone": "app", "port": "app", "colours": "active"}, ["green", "blue"])
    assert {t["labels"]["colour"] for t in made} == {"green"}


def test_all_hosts_are_targets_of_the_node_exporter() -> None:
    made = targets({"zone": "all", "port": "node_exporter"}, [])
    assert [t["labels"]["instance"] for t in made] == ["app-1:9100", "app-2:9100", "edge-1:9100"]


def test_a_zone_without_hosts_has_no_target() -> None:
    assert targets({"zone": "data", "port": "postgres_exporter"}, []) == []


def test_every_job_names_a_zone_and_a_port_of_the_site() -> None:
    site = load("site", "defaults/main.yml")
    for job in load("monitoring", "defaults/main.yml")["monitoring_jobs"].values():
        assert job["zone"] in {*site["site_zones"], "all"}
        assert job.get("colours") or job["port"] in site["site_ports"]


def test_every_scrape_is_an_allowed_flow() -> None:
    site = load("site", "defaults/main.yml")
    for name, job in load("monitoring", "defaults/main.yml")["monitoring_jobs"].items():
        both = [f"{job['port']}_{colour}" for colour in ("blue", "green")]
        for port in both if job.get("colours") else [job["port"]]:
            assert any(
                flow["from"] in ({"self"} if job["zone"] == "monitor" else {"monitor"})
                and flow["to"] in {job["zone"], "all"}
                and port in flow["ports"]
                for flow in site["site_flows"]
            ), f"no flow lets the monitor zone scrape {name}"


def test_dashboards_are_what_their_description_says() -> None:
    command = [sys.executable, str(ROOT / "scripts/dashboards.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in sorted((MONITORING / "files/rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def test_recorded_series_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = [rule["expr"] for rule in rules()]
    used += [path.read_text() for path in (MONITORING / "files/dashboards").glob("*.json")]
    for text in used:
        assert set(re.findall(r"airlift:[a-z0-9_]+:[a-z0-9]+", text)) <= recorded


def test_every_alert_says_what_and_what_to_do() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"warning", "critical"}
            assert {"summary", "action"} <= set(rule["annotations"])


def test_rules_and_dashboards_use_metrics_that_the_service_has() -> None:
    metrics = (ROOT / "app/observability/metrics.py").read_text()
    known = set(re.findall(r'"(app_[a-z_]+)"', metrics))
    known |= {f"{name}_bucket" for name in known}
    texts = [rule["expr"] for rule in rules()]
    for path in (MONITORING / "files/dashboards").glob("*.json"):
        texts += re.findall(r'"expr": "(.*)"', path.read_text())
    for text in texts:
        assert set(re.findall(r"\bapp_[a-z_]+\b", text)) <= known


def test_dashboards_ask_the_provisioned_source() -> None:
    template = (MONITORING / "templates/datasources.yml.j2").read_text()
    for path in sorted((MONITORING / "files/dashboards").glob("*.json")):
        uids = set(
            re.findall(r'"uid": "(airlift-prometheus)"', json.dumps(json.loads(path.read_text())))
        )
        assert uids
        assert all(f"uid: {uid}" in template for uid in uids)


def test_the_files_are_where_the_role_looks(tmp_path: Path) -> None:
    text = (MONITORING / "vars/main.yml").read_text()
    found = re.findall(r"builtin\.(file|template)', monitoring_(\w+) ~ '/([^']+)'", text)
    assert len(found) >= 8
    for _, folder, name in found:
        assert (MONITORING / folder / name).is_file(), name


RULE_TESTS = """
rule_files: [/rules/alerts.yml]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - series: airlift_replica_in_service{host="edge-1",replica="app-1",colour="blue"}
        values: 1x80
      - series: airlift_replica_in_service{host="edge-1",replica="app-2",colour="blue"}
        values: 1x3 0x10 1x60
      - series: airlift_edge_watch_timestamp_seconds{host="edge-1"}
        values: 0+15x20 300x60
      - series: up{host="edge-1",job="nginx"}
        values: 1x80
      - series: up{host="edge-2",job="nginx"}
        values: 1x80
      - series: nginx_up{host="edge-1"}
        values: 1x7 0x8 1x60
      - series: up{host="edge-1",job="node"}
        values: 1x80
      - series: up{host="edge-2",job="node"}
        values: 0x20 1x60
    alert_rule_test:
      - {eval_time: 1m45s, alertname: EdgeDown, exp_alerts: []}
      # Within a minute of the first sample that says so, at two minutes.
      - eval_time: 2m45s
        alertname: EdgeDown
        exp_alerts:
          - exp_labels: {host: edge-1, severity: critical}
      - {eval_time: 4m30s, alertname: EdgeDown, exp_alerts: []}
      - {eval_time: 1m15s, alertname: ReplicaOutOfService, exp_alerts: []}
      - eval_time: 2m
        alertname: ReplicaOutOfService
        exp_alerts:
          - exp_labels: {host: edge-1, replica: app-2, colour: blue, severity: warning}
      - {eval_time: 4m, alertname: ReplicaOutOfService, exp_alerts: []}
      - {eval_time: 5m, alertname: EdgeWatcherStopped, exp_alerts: []}
      - eval_time: 8m
        alertname: EdgeWatcherStopped
        exp_alerts:
          - exp_labels: {host: edge-1, severity: critical}
          # It never wrote anything, and its host answers.
          - exp_labels: {host: edge-2, job: nginx, severity: critical}
"""


@pytest.mark.docker
@pytest.mark.slow
def test_the_alerts_of_the_edge_fire_and_end(tmp_path: Path) -> None:
    tests = yaml.safe_load(RULE_TESTS)
    texts = {
        rule["alert"]: rule["annotations"]
        for rule in rules()
        if rule.get("alert") in {"ReplicaOutOfService", "EdgeWatcherStopped", "EdgeDown"}
    }
    assert len(texts) == 3
    for test in tests["tests"][0]["alert_rule_test"]:
        for expected in test["exp_alerts"]:
            annotations = dict(texts[test["alertname"]])
            for key, text in annotations.items():
                for name, value in expected["exp_labels"].items():
                    text = text.replace(f"{{{{ $labels.{name} }}}}", value)  # noqa: PLW2901
                annotations[key] = text
            expected["exp_annotations"] = annotations
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    volumes = [f"--volume={MONITORING / 'files/rules'}:/rules:ro", f"--volume={tmp_path}:/tests:ro"]
    command = ["run", "--rm", "--network=none", *volumes, "--entrypoint=promtool"]
    command += ["--user=0:0", image_of("prometheus"), "test", "rules", "/tests/tests.yml"]
    engine.run(command, what="promtool")


def test_only_the_edge_has_the_directory_that_node_exporter_reads() -> None:
    agent = yaml.safe_load((ROLES / "swap_agent/vars/main.yml").read_text())
    ours = yaml.safe_load((MONITORING / "vars/main.yml").read_text())
    (option,) = ours["monitoring_edge_metrics"]
    assert option == f"--collector.textfile.directory=/host{agent['swap_agent_watch_dir']}"
    assert not any("textfile" in word for word in ours["monitoring_node_exporter_command"])
