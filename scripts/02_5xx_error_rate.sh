#!/usr/bin/env bash
# Every second request fails with 500 or 503: scripts/02_5xx_error_rate.sh [SECONDS [REQUESTS-A-SECOND]]
# shellcheck source=scripts/traffic.sh disable=SC2034
. "$(dirname "$0")/traffic.sh"
paths=('/faults/error' '/health' '/faults/error?status=503' '/')
watch='Prometheus  airlift:error_ratio:rate5m, and after five minutes the alert HighErrorRatio (Alertmanager: port 9093)
Grafana     Airlift / Airlift: service: "Server errors" rises towards one half; "Answers by status" shows 500 and 503'
traffic "$@"
