# shellcheck shell=bash
# What scripts/01 to 05 share: they set `paths` and `watch`, and call `traffic "$@"`. A few lines of bash and curl, so that they
# run wherever the stack runs; scripts/load, which counts every connection of an upgrade, needs the tree's .venv.
set -euo pipefail

# Sends `rate` requests each second for `seconds`, then says how they were answered: NAME [SECONDS [RATE]]
#   paths=(…)   requested paths, in turn
#   watch=…     where to see it
traffic() {
  : "${paths:?}" "${watch:?}"
  local url=${URL:-http://127.0.0.1:8080} seconds=${1:-60} rate=${2:-5} sent=0 number
  case "$seconds$rate" in
    *[!0-9]*)
      printf 'usage: %s [SECONDS [REQUESTS-A-SECOND]]    URL=%s\n%s\n' "$0" "$url" "$watch" >&2
      exit 2
      ;;
  esac
  if ! curl --silent --fail --max-time 5 --output /dev/null "$url/health"; then
    printf '%s does not answer.\nNext: make stack\n' "$url" >&2
    exit 1
  fi
  local codes end
  codes=$(mktemp)
  # shellcheck disable=SC2064 # the file of now
  trap "rm -f '$codes'" EXIT
  trap 'exit 130' INT TERM
  printf '%s requests a second for %s s to %s\n' "$rate" "$seconds" "$url"
  end=$((SECONDS + seconds))
  while [ "$SECONDS" -lt "$end" ]; do
    # One curl process per second; its requests run concurrently, and the next second does not wait for slow ones.
    local call=(--silent --parallel --parallel-immediate --max-time 15)
    for ((number = 0; number < rate; number++)); do
      [ "$number" -eq 0 ] || call+=(--next --silent --max-time 15)
      call+=(--output /dev/null --write-out '%{http_code}\n' "$url${paths[sent % ${#paths[@]}]}")
      sent=$((sent + 1))
    done
    curl "${call[@]}" >> "$codes" 2> /dev/null &
    sleep 1
  done
  wait
  printf '\nANSWER   REQUESTS\n'
  sort "$codes" | uniq -c | awk '{printf "%-8s %8d\n", $2, $1}'
  if grep -q '^429' "$codes"; then
    printf '\n429: more than RATE_LIMIT_PER_MIN in a minute. To raise it: set it in .env, then scripts/compose.sh up -d --no-build\n'
  fi
  if grep -q '^404' "$codes"; then
    printf '\n404: the fault endpoints are off. To have them: FAULTS_ENABLED=true in .env, then scripts/compose.sh up -d --no-build\n'
    exit 1
  fi
  printf '\n%s\n' "$watch"
}
