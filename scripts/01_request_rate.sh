#!/usr/bin/env bash
# Steady requests that are answered: scripts/01_request_rate.sh [SECONDS [REQUESTS-A-SECOND]]
# shellcheck source=scripts/traffic.sh disable=SC2034
. "$(dirname "$0")/traffic.sh"
# Only paths without a rate limit, so that any rate is possible.
paths=('/' '/health' '/health/ready' '/openapi.json')
watch='Prometheus  sum by (endpoint) (rate(app_requests_total[1m]))
Grafana     Airlift / Airlift: service: "Request rate by replica" rises to the rate that was asked for'
traffic "$@"
