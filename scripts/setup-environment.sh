#!/usr/bin/env bash
# Set up the local stack (docker-compose.yml) on this machine: check it, prepare folders and .env, pull or build the images, start the
# services in order, wait for their health, migrate the database, test each service, report.
# Run it again at any time: it keeps what exists and adds what is missing.
#
#   scripts/setup-environment.sh                start
#   scripts/setup-environment.sh --check        check only; change nothing
#   scripts/setup-environment.sh --down         stop and remove the containers; keep the data
#   scripts/setup-environment.sh --down --volumes     remove the data and the passwords too
#   scripts/setup-environment.sh --help
#
# Options and settings
#   --source SOURCE   where images come from: auto (default: registries if they answer), registry, debian (built from packages)
#   --json            print the report as JSON, and nothing else on standard output
#   NO_COLOR=1        no colours; without a terminal there are none
#   STACK_MIN_DISK_MB, STACK_MIN_MEMORY_MB   free disk and memory that the machine must have: 4000, 1500
#   STACK_WAIT_SECONDS, STACK_LOCK_SECONDS   longest wait for a step, and for another run in this tree: 300, 30
#   AIRLIFT_DOCKER=PROGRAM    the Docker client to use instead of /usr/bin/docker or the one on PATH
#   Ports and other settings: .env (the environment overrides it).
#
# Files: .cache/stack/report.json (the last report), .cache/stack/setup.log (output of all commands)
#
# Exit codes
#   0 done                               8 no registry and no Debian mirror answers
#   2 wrong command line                 9 a folder or file cannot be written or read
#   3 a tool is missing or too old      10 images cannot be pulled or built
#   4 the container engine: no answer   11 a service does not start or does not become healthy
#   5 too little disk                   12 the migrations failed
#   6 too little memory                 13 a service runs but does not answer as it should
#   7 a port is taken                   14 another run is in progress
# 130 interrupted: run the same command again
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CACHE=.cache/stack
readonly LOG=$CACHE/setup.log REPORT=$CACHE/report.json OVERRIDES=$CACHE/images.env
readonly PROJECT=${COMPOSE_PROJECT_NAME:-airlift-stack}
readonly WAIT=${STACK_WAIT_SECONDS:-300}
# Lines of `states` that need no wait. A service that is between two restarts shows as `exited #0`, too.
readonly FINE='^([a-z-]+ running healthy|(([a-z]+-)+exporter|logs) running |(secrets|accounts|migrate) exited )#0$'
action=up source=auto json=no volumes=no

usage() { sed -n '2,/^set -euo/p' "$0" | sed '$d; s/^# \{0,1\}//'; }
die() {
  printf 'setup-environment: %s\n' "$1" >&2
  shift 2
  for line in "$@"; do printf '  fix: %s\n' "$line" >&2; done
}
while [ $# -gt 0 ]; do
  case $1 in
    --check) action=check ;;
    --down) action=down ;;
    --volumes) volumes=yes ;;
    --json) json=yes ;;
    --source)
      source=${2:-}
      [ $# -lt 2 ] || shift
      ;;
    -h | --help) usage && exit 0 ;;
    *) die "unknown option: $1" 2 "scripts/setup-environment.sh --help" && exit 2 ;;
  esac
  shift
done
case $source in
  auto | registry | debian) ;;
  *) die "unknown source: ${source:-(none)}" 2 "--source auto, registry or debian" && exit 2 ;;
esac
if [ "$volumes" = yes ] && [ "$action" != down ]; then
  die "--volumes removes data and goes with --down only" 2 "scripts/setup-environment.sh --down --volumes" && exit 2
fi

# ---------------------------------------------------------------- output
out=1
[ "$json" = no ] || out=2
green='' red='' yellow='' plain=''
if [ -z "${NO_COLOR:-}" ] && [ -t "$out" ]; then green=$'\e[32m' red=$'\e[31m' yellow=$'\e[33m' plain=$'\e[0m'; fi
# Status, name, seconds, detail, fix. Not separated by a blank or tab: `read` would take several of those for one.
readonly SEP=$'\x1f'
rows=()
first_code=0

# Notes one result: STATUS NAME SECONDS DETAIL [FIX]
note() {
  local colour=$green
  case $1 in
    failed) colour=$red ;;
    warning) colour=$yellow ;;
  esac
  [ ${#rows[@]} -gt 0 ] || printf '%-8s %-20s %6s  %s\n' STATUS STEP TIME DETAIL >&"$out"
  rows+=("$1$SEP$2$SEP$3$SEP$4$SEP${5:-}")
  printf '%s%-8s%s %-20s %4s s  %s\n' "$colour" "$1" "$plain" "$2" "$3" "$4" >&"$out"
  if [ -n "${5:-}" ]; then printf '         fix: %s\n' "$5" >&"$out"; fi
}
bad() { # CODE NAME DETAIL FIX
  note failed "$2" 0 "$3" "$4"
  if [ "$first_code" -eq 0 ]; then first_code=$1; fi
}

text() { # a JSON string
  local value=${1//\\/\\\\}
  value=${value//\"/\\\"}
  printf '"%s"' "$(tr -d '\000-\037' <<< "$value")"
}

report() { # CODE
  local row status name seconds detail fix comma=''
  {
    printf '{"format": 1, "exit_code": %d, "action": "%s", "time": "%s", "steps": [' "$1" "$action" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    for row in "${rows[@]}"; do
      IFS=$SEP read -r status name seconds detail fix <<< "$row"
      printf '%s\n  {"status": "%s", "name": %s, "seconds": %s, "detail": %s, "fix": %s}' \
        "$comma" "$status" "$(text "$name")" "$seconds" "$(text "$detail")" "$(text "$fix")"
      comma=,
    done
    printf '\n]}\n'
  } > "$work/report.json"
  if [ "$json" = yes ]; then cat "$work/report.json"; fi
  # A check writes nothing; neither can a machine whose disk is full.
  if [ "$action" != check ]; then cp "$work/report.json" "$REPORT" 2> /dev/null || true; fi
}

work=$(mktemp -d)
finish() {
  local code=$?
  trap - EXIT
  report "$code"
  case $code in
    0) ;;
    130) printf 'interrupted. Next: %s\n' "scripts/setup-environment.sh" >&2 ;;
    *) [ "$action" = check ] || [ ! -e "$LOG" ] || printf 'log: %s\n' "$LOG" >&2 ;;
  esac
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

# ---------------------------------------------------------------- settings
setting() { # NAME DEFAULT: the environment's value, else that of .env
  local value=${!1:-}
  if [ -z "$value" ] && [ -r .env ]; then value=$(sed -n "s/^$1=//p" .env | tail -n 1 | tr -d "\"'"); fi
  printf '%s' "${value:-$2}"
}
compose() { scripts/compose.sh --project-name "$PROJECT" "$@"; }
# Prefer the distribution's client, which fits its engine.
if [ -n "${AIRLIFT_DOCKER:-}" ]; then
  docker=$(command -v "$AIRLIFT_DOCKER" || true)
else
  docker=$(command -v /usr/bin/docker || command -v docker || true)
fi

# shellcheck source=scripts/setup-checks.sh
. scripts/setup-checks.sh

# ---------------------------------------------------------------- steps: each has its own exit code
# Runs one step: CODE NAME FIX COMMAND... The last line that the command prints on descriptor 3 is the detail.
step() {
  local code=$1 name=$2 fix=$3 began=$SECONDS
  shift 3
  # On a disk that has filled up the command fails, with the code of its step.
  printf '\n=== %s %s\n' "$(date -u +%H:%M:%S)" "$name" 2> /dev/null >> "$LOG" || true
  if "$@" >> "$LOG" 2>&1 3> "$work/detail"; then
    note ok "$name" $((SECONDS - began)) "$(tail -n 1 "$work/detail")"
    return
  fi
  local said
  said=$(tail -n 1 "$work/detail")
  note failed "$name" $((SECONDS - began)) "${said:-$(grep -E '^[^ ]' "$LOG" | tail -n 1 | cut -c 1-200)}" "$fix"
  exit "$code"
}

prepare() {
  local key missing=()
  mkdir -p "$(setting SOURCES_DIR ./stack/sources)/inbox" || return
  if [ ! -e .env ]; then
    # A whole file or none: one that was cut short would be kept for ever.
    cp .env.example .env.new && mv .env.new .env || return
    echo ".env made from .env.example" >&3
  else
    while read -r key; do
      grep -q "^$key=" .env || missing+=("$key")
    done < <(sed -n 's/^\([A-Z_]*\)=.*/\1/p' .env.example)
    echo ".env kept${missing[*]:+; not in it, so by default: ${missing[*]}}" >&3
  fi
  # Containers run as users of their own; a clone made with umask 077 would be closed to them.
  find stack/rendered stack/*.py stack/*.sh roles/monitoring/files roles/postgres/library \
    \( -type d ! -perm -005 -o -type f ! -perm -004 \) -exec chmod go+rX {} + || return
}

images() {
  if ! from_registries; then
    [ -x .venv/bin/python ] || scripts/dev-setup.sh || return
    .venv/bin/python -m scripts.stack_images || return
    echo "built from Debian packages, without Grafana" >&3
  else
    rm -f "$OVERRIDES"
    compose pull --quiet --ignore-buildable && compose build --quiet || return
    echo "pulled by digest; the app built from this tree" >&3
  fi
}

# The state of each container, one per line: service, state, health, exit code: [SERVICE...]
states() { compose ps --all --format '{{.Service}} {{.State}} {{.Health}}#{{.ExitCode}}' "$@"; }
# shellcheck disable=SC2120 # until_silent passes names
unready() { states "$@" | grep -vE "$FINE"; }

# Waits until COMMAND prints nothing; its last output is the detail: SECONDS PROBLEM COMMAND...
until_silent() {
  local until=$((SECONDS + $1)) problem=$2 printed
  shift 2
  while printed=$("$@" || true) && [ -n "$printed" ]; do
    if [ "$SECONDS" -ge "$until" ]; then
      echo "$problem: ${printed//$'\n'/; }" >&3
      return 1
    fi
    sleep 1
  done
}

started() { # SERVICE...
  # In this process group: Ctrl-C is for it, too.
  timeout --foreground "$WAIT" scripts/compose.sh --project-name "$PROJECT" up --detach --no-build "$@" || {
    # shellcheck disable=SC2119 # of all
    unready >&3 || true
    return 1
  }
}

healthy() { # [SERVICE...]
  local count
  # An empty list is not healthy: a stopped engine lists nothing.
  until_silent "$WAIT" "not healthy after $WAIT s" unready "$@" && count=$(states "$@" | grep -c ' running ') && echo "$count run" >&3
}

migrated() {
  if compose run --rm --no-TTY --no-deps migrate > "$work/migrate" 2>&1; then
    sed -n 's/.*"version":\([0-9]*\),"before":\([0-9]*\).*/schema \1 (it was \2)/p' "$work/migrate" | tail -n 1 >&3
  else
    cat "$work/migrate"
    sed -n 's/.*"reason":"\([^"]*\)".*/\1/p' "$work/migrate" | tail -n 1 >&3
    return 1
  fi
}

asked() { # URL WHAT-THE-ANSWER-HOLDS
  local answer
  answer=$(curl --silent --show-error --max-time 10 --retry 3 --retry-connrefused --retry-delay 1 "$1" 2>&1) || { echo "$1: $answer" >&3; return 1; }
  [[ $answer == *"$2"* ]] || { echo "$1 answers: ${answer:0:150}" >&3; return 1; }
  echo "$1" >&3
}

targets_down() {
  local answer
  answer=$(curl --silent --show-error --max-time 10 "http://127.0.0.1:$(setting PROMETHEUS_PORT 9090)/api/v1/targets?state=active" 2>&1) || true
  # One target per line, those that are not up.
  [[ $answer == *'"health":'* ]] || { echo "Prometheus: ${answer:0:150}" && return; }
  tr '{' '\n' <<< "$answer" | grep -oE '"scrapePool":"[a-z]+"|"health":"[a-z]+"' | paste -d' ' - - | grep -v '"up"'
}
scraped() { until_silent 90 "targets that do not answer" targets_down && echo "every target answers" >&3; }

# ---------------------------------------------------------------- main
if [ "$action" = down ]; then
  mkdir -p "$CACHE"
  check_tools
  [ "$first_code" -eq 0 ] || exit "$first_code"
  options=(--remove-orphans --timeout 20)
  if [ "$volumes" = yes ]; then options+=(--volumes); fi
  : > "$LOG"
  # A killed start may leave an endpoint of a container that was never created in the engine.
  fix="read $LOG; a network with active endpoints and no container goes when the engine is restarted (systemctl restart docker)"
  step 11 "$([ "$volumes" = yes ] && echo "down, with its data" || echo "down, data kept")" "$fix" compose --profile '*' down "${options[@]}"
  exit 0
fi

check_tools
if [ "$first_code" -eq 0 ]; then
  check_room
  check_network
  check_ports
fi
if [ "$action" = check ]; then exit "$first_code"; fi
[ "$first_code" -eq 0 ] || exit "$first_code"

if ! mkdir -p "$CACHE" 2> /dev/null || ! { date -u >> "$LOG"; } 2> /dev/null; then
  bad 9 folders "$CACHE cannot be written" "give $(id -un) the right to write in $PWD, or make room"
  exit 9
fi
exec 9> "$CACHE/lock"
# Containers that a killed run started end by themselves soon.
if ! flock --wait "${STACK_LOCK_SECONDS:-30}" 9; then
  die "another run is in progress in this tree" 14 "wait for it, then run the same again"
  exit 14
fi
: > "$LOG"
step 9 "folders, settings" "give $(id -un) the right to write in $PWD" prepare
step 3 "compose, at hand" "read $LOG; install docker-compose-plugin, or check that a Debian mirror answers: apt-get update" compose version
step 10 images "read $LOG; make room or check the network, then run the same again" images
step 11 "data services" "scripts/compose.sh logs postgres redis" eval 'started postgres redis && healthy postgres redis'
step 12 migrations "scripts/compose.sh logs postgres; then run the same again" eval 'started accounts && migrated'
step 11 services "scripts/compose.sh logs app worker nginx" started
step 11 health "scripts/compose.sh ps -a; scripts/compose.sh logs SERVICE" healthy
step 13 postgres "scripts/compose.sh logs postgres" compose exec -T postgres pg_isready --host /run/postgresql --username postgres
step 13 redis "scripts/compose.sh logs redis" compose exec -T redis redis-cli -e --no-auth-warning --user health --pass health ping
step 13 worker "scripts/compose.sh logs worker" compose exec -T worker python -m app healthcheck --worker
step 13 API "scripts/compose.sh logs app" asked "http://127.0.0.1:$(setting PORT 8000)/health/ready" '"status":"ready"'
step 13 nginx "scripts/compose.sh logs nginx" asked "http://127.0.0.1:$(setting HTTP_PORT 8080)/health" '"status":"ok"'
step 13 prometheus "scripts/compose.sh logs prometheus" scraped
step 13 alertmanager "scripts/compose.sh logs alertmanager" asked "http://127.0.0.1:$(setting ALERTMANAGER_PORT 9093)/-/ready" OK
if compose ps --services | grep -qx grafana; then
  step 13 grafana "scripts/compose.sh logs grafana" asked "http://127.0.0.1:$(setting GRAFANA_PORT 3000)/api/health" '"database"'
else
  note warning grafana 0 "omitted: its profile is off, or Debian has no package of it; Prometheus shows the same numbers"
fi
printf '\nAPI         http://127.0.0.1:%s  and through Nginx  http://127.0.0.1:%s\nPrometheus  http://127.0.0.1:%s\nNext: scripts/01_request_rate.sh\n' \
  "$(setting PORT 8000)" "$(setting HTTP_PORT 8080)" "$(setting PROMETHEUS_PORT 9090)" >&"$out"
