"""Write the Grafana dashboards of roles/monitoring from a short description of their panels.

    python scripts/dashboards.py           # write them
    python scripts/dashboards.py --check   # exit 1 if the committed files differ

The panels are data below. The schema comes from grafana-foundation-sdk, so Grafana can read the
result even if there was no Grafana to test it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

TARGET = Path(__file__).parent.parent / "roles/monitoring/files/dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="airlift-prometheus")
WIDTH = 24


class Panel(NamedTuple):
    """One panel: its title, its queries (legend: expression), and its description."""

    title: str
    queries: dict[str, str]
    note: str
    unit: str = "short"
    kind: str = "time"
    width: int = 8
    height: int = 8


class Row(NamedTuple):
    """Panels under one heading."""

    title: str
    panels: list[Panel]


RATE = "sum by ({by}) (rate({metric}[$__rate_interval]))"
SERVICE = [
    Row(
        "At a glance",
        [
            Panel(
                "Replicas answering",
                {"{{colour}}": 'sum by (colour) (up{job="app"})'},
                "As many as there are app hosts, for the colour that serves.",
                kind="stat",
                width=6,
                height=4,
            ),
            Panel(
                "Requests a second",
                {"requests": "sum(airlift:requests:rate1m)"},
                "All replicas together.",
                unit="reqps",
                kind="stat",
                width=6,
                height=4,
            ),
            Panel(
                "Server errors",
                {"ratio": "airlift:error_ratio:rate5m or vector(0)"},
                "Share of answers of the 5xx class. An alert fires above 5 %.",
                unit="percentunit",
                kind="stat",
                width=6,
                height=4,
            ),
            Panel(
                "p95 latency",
                {"p95": "airlift:latency_seconds:p95"},
                "95 of 100 requests are faster. An alert fires above 200 ms.",
                unit="s",
                kind="stat",
                width=6,
                height=4,
            ),
        ],
    ),
    Row(
        "Requests",
        [
            Panel(
                "Request rate by replica",
                {
                    "{{host}} {{colour}}": RATE.format(
                        by="host, colour", metric="app_requests_total"
                    )
                },
                "During a swap the lines of one colour fall to zero while the other's rise.",
                unit="reqps",
            ),
            Panel(
                "Latency",
                {
                    "p50": "airlift:latency_seconds:p50",
                    "p95": "airlift:latency_seconds:p95",
                    "p99": "airlift:latency_seconds:p99",
                },
                "p99 alone rising: single slow requests. All rising: CPU or Postgres.",
                unit="s",
            ),
            Panel(
                "Answers by status",
                {"{{http_status}}": RATE.format(by="http_status", metric="app_requests_total")},
                "429 is the rate limit, 503 a dependency that is missing.",
                unit="reqps",
            ),
            Panel(
                "Busiest endpoints",
                {
                    "": "topk(10, sum by (method, endpoint)"
                    " (rate(app_requests_total[$__rate_interval])))"
                },
                "The ten routes with the most requests.",
                unit="reqps",
                kind="table",
                width=12,
            ),
            Panel(
                "Errors by cause",
                {
                    "{{error}} {{endpoint}}": RATE.format(
                        by="error, endpoint", metric="app_errors_total"
                    )
                },
                "What is behind 5xx answers; the service's log has the trace, by request id.",
                unit="eps",
                width=12,
            ),
        ],
    ),
    Row(
        "Jobs",
        [
            Panel(
                "Jobs by state",
                {"{{state}}": "max by (state) (app_jobs)"},
                "Queued growing while running is flat: too few workers.",
            ),
            Panel(
                "Age of the queue",
                {"oldest": "max(app_jobs_queue_age_seconds)"},
                "How long the job that is due longest has been waiting.",
                unit="s",
            ),
            Panel(
                "Jobs at once",
                {
                    "{{host}} running": "app_worker_jobs_running",
                    "{{host}} at most": "app_worker_concurrency",
                },
                "A worker allows itself more, between its bounds, while due jobs wait.",
            ),
            Panel(
                "Leases lost",
                {"{{host}}": "sum by (host) (rate(app_job_leases_lost_total[$__rate_interval]))"},
                "Jobs taken back from a worker that was killed or frozen; another one runs them.",
                unit="ops",
            ),
            Panel(
                "Attempts that ended",
                {
                    "{{source_type}} {{outcome}}": RATE.format(
                        by="source_type, outcome", metric="app_jobs_finished_total"
                    )
                },
                "Failed attempts are repeated with growing pauses, then parked.",
                unit="ops",
            ),
        ],
    ),
    Row(
        "Deployment",
        [
            Panel(
                "What runs",
                {"": "app_build_info == 1"},
                "Release, revision and colour of each replica; two releases only during a swap.",
                kind="table",
                width=12,
            ),
            Panel(
                "Dependencies as the service sees them",
                {"{{host}} {{dependency}}": "min by (host, dependency) (app_dependency_up)"},
                "Redis down: degraded, but serving. Postgres down: not ready.",
                width=12,
            ),
        ],
    ),
]
HOSTS = [
    Row(
        "Hosts",
        [
            Panel(
                "CPU busy",
                {"{{host}}": "airlift:host_cpu_busy:ratio5m"},
                "An alert fires above 90 % for 15 minutes.",
                unit="percentunit",
            ),
            Panel(
                "Memory used",
                {"{{host}}": "airlift:host_memory_used:ratio"},
                "An alert fires above 90 %.",
                unit="percentunit",
            ),
            Panel(
                "Disk used",
                {"{{host}} {{mountpoint}}": "airlift:host_disk_used:ratio"},
                "An alert fires above 85 %, or when the disk would be full within a day.",
                unit="percentunit",
            ),
            Panel(
                "Network in",
                {
                    "{{host}} {{device}}": "sum by (host, device)"
                    " (rate(node_network_receive_bytes_total[$__rate_interval]))"
                },
                "Bytes a second.",
                unit="Bps",
            ),
            Panel(
                "Network out",
                {
                    "{{host}} {{device}}": "sum by (host, device)"
                    " (rate(node_network_transmit_bytes_total[$__rate_interval]))"
                },
                "Bytes a second.",
                unit="Bps",
            ),
            Panel(
                "Targets that do not answer",
                {"": "up == 0"},
                "Empty is good.",
                kind="table",
            ),
        ],
    ),
    Row(
        "Postgres and Redis",
        [
            Panel(
                "Postgres connections",
                {
                    "{{state}}": "sum by (state) (pg_stat_activity_count)",
                    "limit": "max(pg_settings_max_connections)",
                },
                "The service waits for a connection when the limit is reached.",
            ),
            Panel(
                "Postgres transactions",
                {
                    "committed": 'sum(rate(pg_stat_database_xact_commit{datname="airlift"}'
                    "[$__rate_interval]))",
                    "rolled back": 'sum(rate(pg_stat_database_xact_rollback{datname="airlift"}'
                    "[$__rate_interval]))",
                },
                "Rollbacks rising: look at the service's log.",
                unit="ops",
            ),
            Panel(
                "Redis memory",
                {
                    "used": "sum(redis_memory_used_bytes)",
                    "limit": "sum(redis_memory_max_bytes)",
                },
                "At its limit Redis refuses writes.",
                unit="bytes",
            ),
            Panel(
                "Connections at the edge",
                {"{{host}} active": "sum by (host) (nginx_connections_active)"},
                "Clients' connections, idle ones included.",
            ),
        ],
    ),
]


def queries(panel: Panel, *, instant: bool) -> list[prometheus.Dataquery]:
    """Return a panel's queries as the SDK's builders."""
    built = []
    for number, (legend, expression) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().expr(expression).ref_id(chr(ord("A") + number))
        query = query.legend_format(legend) if legend else query
        built.append(query.instant().format(PromQueryFormat.TABLE) if instant else query.range())
    return built


PanelBuilder = stat.Panel | table.Panel | timeseries.Panel
BUILDERS: dict[str, type[PanelBuilder]] = {
    "stat": stat.Panel,
    "table": table.Panel,
    "time": timeseries.Panel,
}


def build_panel(panel: Panel) -> PanelBuilder:
    """Return one panel as the SDK's builder."""
    built = (
        BUILDERS[panel.kind]()
        .title(panel.title)
        .description(panel.note)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(panel.height)
    )
    for query in queries(panel, instant=panel.kind == "table"):
        built = built.with_target(query)
    return built


def build(uid: str, title: str, rows: list[Row], *, swaps: bool) -> str:
    """Return one dashboard as JSON."""
    dashboard = (
        board.Dashboard(title)
        .uid(uid)
        .tags(["airlift"])
        .editable()
        .refresh("15s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
    )
    if swaps:
        dashboard = dashboard.annotation(
            board.AnnotationQuery()
            .name("A colour starts")
            .datasource(SOURCE)
            .enable(True)
            .hide(False)
            .icon_color("purple")
            .expr(
                "sum by (colour, version) (app_build_info)"
                " unless sum by (colour, version) (app_build_info offset 1m)"
            )
        )
    for row in rows:
        dashboard = dashboard.with_row(board.Row(row.title))
        for panel in row.panels:
            dashboard = dashboard.with_panel(build_panel(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(dashboard.build()) + "\n"


def main() -> int:
    """Write the dashboards, or compare them with what is committed."""
    parser = argparse.ArgumentParser(description="write the Grafana dashboards")
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    wanted = {
        "service.json": build("airlift-service", "Airlift: service", SERVICE, swaps=True),
        "hosts.json": build("airlift-hosts", "Airlift: hosts and data", HOSTS, swaps=False),
    }
    stale = [
        name
        for name, text in wanted.items()
        if not (TARGET / name).is_file() or (TARGET / name).read_text() != text
    ]
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run: python scripts/dashboards.py")
        return 1
    for name in stale:
        (TARGET / name).write_text(wanted[name])
        print(f"wrote {TARGET / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
