#!/usr/bin/env bash
# A mix in which some endpoints are asked more than others: scripts/04_top_endpoints.sh [SECONDS [REQUESTS-A-SECOND]]
# shellcheck source=scripts/traffic.sh disable=SC2034
. "$(dirname "$0")/traffic.sh"
paths=('/health' '/' '/health' '/predict' '/health' '/' '/health' '/items'
  '/health' '/' '/health' '/model/info')
watch='Prometheus  topk(5, sum by (endpoint) (rate(app_requests_total[5m])))
Grafana     Airlift / Airlift: service: "Busiest endpoints" has /health first, then /'
traffic "$@"
