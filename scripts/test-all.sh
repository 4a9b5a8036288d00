#!/usr/bin/env bash
# Runs every test stage, keeps going after a failed one, and ends with where the time went, by stage and by test, and one
# closing line "N passed, N failed". Exit code 0 only if every stage passed.
#   scripts/test-all.sh [group ...]      stages: lint unit operator molecule stack site; a group is one stage, or lanes: "unit | molecule stack"
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export PATH="$PWD/.venv/bin:$PATH"
reports=.cache/reports
mkdir -p "$reports"
rm -f "$reports"/*.xml "$reports"/*.end

cleanup() {
  # After the tests, no process and no container is left, also after a failure.
  if [ ${#jobs[@]} -gt 0 ]; then
    kill -INT -- "${jobs[@]/#/-}" 2>/dev/null # pytest removes its fixtures
    wait "${jobs[@]}"
  fi
  ansible-playbook -i molecule/lab/inventory.yml molecule/lab/destroy.yml >"$reports/destroy.log" 2>&1 || {
    echo "the lab could not be removed; see $reports/destroy.log and run: make lab-down" >&2
  }
}
jobs=()
trap cleanup EXIT

run_stage() {
  case $1 in
    lint) make lint ;;
    # What an operator and a pipeline call is a stage of its own, so that two lanes take equally long.
    unit) pytest tests/unit -n 1 --ignore=tests/unit/site --ignore=tests/unit/scripts --junitxml="$reports/unit.xml" ;;
    operator) pytest tests/unit/site tests/unit/scripts -n 1 --junitxml="$reports/operator.xml" ;;
    molecule) scripts/molecule-test.sh "$reports/molecule" ;;
    stack) pytest tests/stack --junitxml="$reports/stack.xml" ;;
    site) pytest tests/e2e --junitxml="$reports/site.xml" ;;
    *) echo "no such stage: $1 (lint unit operator molecule stack site)" >&2; return 2 ;;
  esac
}

# One argument is one group of lanes, parted by "|"; a lane's stages run one after the other. The last lane runs in the foreground;
# the others run beside it at a lower CPU priority, because a site waits for much of its time. Their output is kept, and
# shown when the last lane is done.
groups=("$@")
[ ${#groups[@]} -gt 0 ] || groups=("unit | lint molecule stack operator | site")
order=() # of the stages, as they are shown

title() {
  if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    printf '\n\033[1m=== %s\033[0m\n' "$1"
  else
    printf '\n=== %s\n' "$1"
  fi
}

# Runs a stage and keeps how it ended, with its seconds
timed_stage() {
  local start=$SECONDS
  run_stage "$1"
  echo "$? $((SECONDS - start))" >"$reports/$1.end"
}

# Runs the stages of a lane in the background and keeps their output: STAGE ...
run_beside() {
  trap 'exit 130' INT
  renice --priority 8 --pid "$BASHPID" >/dev/null
  for stage in "$@"; do
    timed_stage "$stage" >"$reports/$stage.log" 2>&1
  done
}

for group in "${groups[@]}"; do
  IFS='|' read -ra lanes <<<"$group"
  jobs=()
  others=()
  set -m # each lane is a process group of its own: it can be ended as one
  for lane in "${lanes[@]::${#lanes[@]}-1}"; do
    read -ra stages <<<"$lane"
    others+=("${stages[@]}")
    run_beside "${stages[@]}" </dev/null &
    jobs+=($!)
  done
  set +m
  read -ra stages <<<"${lanes[-1]}"
  for stage in "${stages[@]}"; do
    title "$stage"
    timed_stage "$stage"
  done
  wait "${jobs[@]}"
  for stage in "${others[@]}"; do
    title "$stage"
    cat "$reports/$stage.log"
  done
  order+=("${stages[@]}" "${others[@]}")
  jobs=()
done

printf '\n'
python scripts/junit_totals.py "$reports" "$SECONDS" "${order[@]}"
