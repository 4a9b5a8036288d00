#!/usr/bin/env bash
# One request of four takes half a second: scripts/03_latency_p95.sh [SECONDS [REQUESTS-A-SECOND]]
# shellcheck source=scripts/traffic.sh disable=SC2034
. "$(dirname "$0")/traffic.sh"
paths=('/faults/slow?seconds=0.5' '/health' '/' '/health')
watch='Prometheus  airlift:latency_seconds:p95 goes above 0.2 s; the alert HighLatency fires after ten minutes of it
Grafana     Airlift / Airlift: service: "Latency" p95 and p99 rise, p50 stays'
traffic "$@"
