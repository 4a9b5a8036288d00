#!/usr/bin/env bash
# Exceptions that the service does not catch: scripts/05_exceptions_rate.sh [SECONDS [REQUESTS-A-SECOND]]
# shellcheck source=scripts/traffic.sh disable=SC2034
. "$(dirname "$0")/traffic.sh"
paths=('/faults/exception' '/health')
watch='Prometheus  sum by (error) (rate(app_errors_total[1m])): OnPurposeError
Grafana     Airlift / Airlift: service: "Errors by cause"; the stack traces: scripts/compose.sh logs app | grep exception'
traffic "$@"
