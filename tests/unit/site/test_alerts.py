"""Each alert waits, fires and ends, as computed by promtool from samples."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from bundle.builder.images import engine
from tests.unit.app.appkit import image_of
from tests.unit.roles.conftest import ROLES

RULES = ROLES / "monitoring" / "files" / "rules"


class Case(NamedTuple):
    """Samples per minute, and the minutes at which the alert waits, fires and has ended."""

    series: dict[str, str]
    waits: int
    fires: int
    ended: int


def level(series: str, bad: str, good: str, *, waits: int = 0, fires: int = 20) -> Case:
    """Return the case of a series that is bad for half an hour, then good."""
    return Case({series: f"{bad}x30 {good}x60"}, waits, fires, 60)


#: Cases by alert. A case begins in the bad state unless its samples say otherwise.
CASES: dict[str, list[Case]] = {
    "HighErrorRatio": [
        Case(
            {
                'app_requests_total{colour="blue",host="app-1",http_status="200"}': "0+90x90",
                'app_requests_total{colour="blue",host="app-1",http_status="500"}': (
                    "0+10x30 300x60"
                ),
            },
            waits=3,
            fires=20,
            ended=60,
        )
    ],
    "HighLatency": [
        Case(
            {
                'app_request_latency_seconds_bucket{le="0.1"}': "0x30 0+100x60",
                'app_request_latency_seconds_bucket{le="0.5"}': "0+100x90",
                'app_request_latency_seconds_bucket{le="+Inf"}': "0+100x90",
            },
            waits=8,
            fires=25,
            ended=60,
        )
    ],
    "FewerReplicas": [
        Case(
            {
                'up{job="app",colour="blue",host="app-1"}': "1x90",
                'up{job="app",colour="blue",host="app-2"}': "0x30 1x60",
            },
            waits=1,
            fires=20,
            ended=60,
        )
    ],
    "ReplicaOutOfService": [
        level('airlift_replica_in_service{host="edge-1",replica="a",colour="b"}', "0", "1")
    ],
    "EdgeWatcherStopped": [
        Case(
            {'airlift_edge_watch_timestamp_seconds{host="edge-1"}': "0x30 1860+60x60"},
            waits=1,
            fires=20,
            ended=60,
        ),
        # It never wrote a value, and its host answers.
        Case(
            {
                'up{job="nginx",host="edge-1"}': "1x90",
                'up{job="node",host="edge-1"}': "1x90",
                'airlift_edge_watch_timestamp_seconds{host="edge-1"}': "_x30 1860+60x60",
            },
            waits=0,
            fires=20,
            ended=60,
        ),
    ],
    "EdgeUnfit": [level('airlift_edge_fit{host="edge-2"}', "0", "1", waits=4)],
    "EdgeDown": [
        level('nginx_up{host="edge-1"}', "0", "1"),
        level('up{job="nginx",host="edge-1"}', "0", "1"),
    ],
    "ServiceDown": [level('up{job="app",colour="blue",host="app-1"}', "0", "1")],
    "JobsWait": [level("app_jobs_queue_age_seconds", "301", "0", waits=4)],
    "JobsDied": [
        Case(
            {'app_jobs_finished_total{source_type="api",outcome="dead"}': "0x9 3x120"},
            waits=5,
            fires=20,
            ended=100,
        )
    ],
    "InstanceDown": [level('up{job="node",host="app-1"}', "0", "1", waits=1)],
    "PostgresDown": [level('pg_up{host="data-1"}', "0", "1")],
    "PostgresConnectionsHigh": [
        Case(
            {
                'pg_stat_activity_count{host="data-1",state="idle"}': "50x90",
                'pg_stat_activity_count{host="data-1",state="active"}': "50x30 5x60",
                'pg_settings_max_connections{host="data-1"}': "110x90",
            },
            waits=4,
            fires=20,
            ended=60,
        )
    ],
    "RedisDown": [level('redis_up{host="data-1"}', "0", "1")],
    "RedisMemoryHigh": [
        Case(
            {
                'redis_memory_used_bytes{host="data-1"}': "95x30 10x60",
                'redis_memory_max_bytes{host="data-1"}': "100x90",
            },
            waits=9,
            fires=20,
            ended=60,
        )
    ],
    "HostCpuHigh": [
        Case(
            {'node_cpu_seconds_total{host="app-1",cpu="0",mode="idle"}': "0x30 0+60x60"},
            waits=10,
            fires=25,
            ended=60,
        )
    ],
    "HostMemoryHigh": [
        Case(
            {
                'node_memory_MemAvailable_bytes{host="app-1"}': "5x30 80x60",
                'node_memory_MemTotal_bytes{host="app-1"}': "100x90",
            },
            waits=9,
            fires=20,
            ended=60,
        )
    ],
    "HostDiskFilling": [
        Case(
            {
                'node_filesystem_avail_bytes{host="a",mountpoint="/",fstype="ext4"}': "10x60 60x60",
                'node_filesystem_size_bytes{host="a",mountpoint="/",fstype="ext4"}': "100x120",
            },
            waits=25,
            fires=45,
            ended=110,
        ),
        # The disk is not full yet, but would be within a day.
        Case(
            {
                'node_filesystem_avail_bytes{host="a",mountpoint="/",fstype="ext4"}': (
                    "1000-5x60 700x500"
                ),
                'node_filesystem_size_bytes{host="a",mountpoint="/",fstype="ext4"}': "1000x560",
            },
            waits=25,
            fires=50,
            ended=500,
        ),
    ],
    "ClockOff": [level('node_timex_offset_seconds{host="app-1"}', "-2", "0", waits=9)],
    "AlertmanagerDown": [
        level("prometheus_notifications_alertmanagers_discovered", "0", "1", waits=4)
    ],
    "RuleFailures": [
        Case(
            {"prometheus_rule_evaluation_failures_total": "0x9 3x120"}, waits=5, fires=15, ended=60
        )
    ],
}


def alerts() -> list[str]:
    """Return the name of every alert."""
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


def test_every_alert_has_a_case() -> None:
    assert sorted(CASES) == sorted(alerts())


def asked(alert: str, minute: int, *, firing: bool) -> dict[str, Any]:
    """Return a promtool test: whether an alert fires at a minute."""
    return {
        "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": "{}", "value": 1}] if firing else [],
    }


def promtool(tmp_path: Path) -> None:
    """Run promtool on every case."""
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": one, "values": two} for one, two in case.series.items()],
            "promql_expr_test": [
                asked(alert, case.waits, firing=False),
                asked(alert, case.fires, firing=True),
                asked(alert, case.ended, firing=False),
            ],
        }
        for alert, cases in CASES.items()
        for case in cases
    ]
    files = [f"/rules/{path.name}" for path in sorted(RULES.glob("*.yml"))]
    text = {"rule_files": files, "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(text))
    volumes = [f"--volume={RULES}:/rules:ro", f"--volume={tmp_path}:/tests:ro"]
    command = ["run", "--rm", "--network=none", *volumes, "--entrypoint=promtool"]
    command += ["--user=0:0", image_of("prometheus"), "test", "rules", "/tests/tests.yml"]
    engine.run(command, what="promtool")


@pytest.mark.docker
@pytest.mark.slow
def test_each_alert_waits_fires_and_ends(tmp_path: Path) -> None:
    promtool(tmp_path)
