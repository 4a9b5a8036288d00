#!/usr/bin/env bash
# Runs every test stage in order, keeps going after a failed one, and ends with one table and one
# closing line "N passed, N failed". Exit code 0 only if every stage passed.
#   scripts/test-all.sh [group ...]      stages: lint unit molecule stack site; a group is one or more of them: "unit molecule"
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export PATH="$PWD/.venv/bin:$PATH"
reports=.cache/reports
mkdir -p "$reports"
rm -f "$reports"/*.xml "$reports"/*.end

cleanup() {
  # Tests leave no process and no container behind, whatever happened to them.
  if [ ${#jobs[@]} -gt 0 ]; then
    kill -INT -- "${jobs[@]/#/-}" 2>/dev/null # pytest takes down what it set up
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
    unit) pytest tests/unit -n 1 --junitxml="$reports/unit.xml" ;;
    molecule) scripts/molecule-test.sh "$reports/molecule.xml" ;;
    stack) pytest tests/stack --junitxml="$reports/stack.xml" ;;
    site) pytest tests/e2e --junitxml="$reports/site.xml" ;;
    *) echo "no such stage: $1 (lint unit molecule stack site)" >&2; return 2 ;;
  esac
}

# One argument is one group. Its last stage runs in the foreground; the others run beside it, one after the other and with less
# right to the cores, because a site waits for much of its time. What they print is kept, and shown when the last stage is done.
groups=("$@")
[ ${#groups[@]} -gt 0 ] || groups=(lint "unit stack molecule site")
rows=()
failed_stages=0

# Notes how a stage ended: NAME CODE SECONDS
note() {
  local result=passed
  if [ "$2" -ne 0 ]; then
    result="FAILED (exit $2)"
    failed_stages=$((failed_stages + 1))
  fi
  rows+=("$(printf '%-10s %-18s %4d s' "$1" "$result" "$3")")
}

for group in "${groups[@]}"; do
  read -ra stages <<<"$group"
  others=("${stages[@]::${#stages[@]}-1}")
  jobs=()
  if [ ${#others[@]} -gt 0 ]; then
    set -m # a process group of its own: it can be ended as one
    (
      trap 'exit 130' INT
      renice --priority 8 --pid "$BASHPID" >/dev/null
      for stage in "${others[@]}"; do
        start=$SECONDS
        run_stage "$stage" >"$reports/$stage.log" 2>&1
        echo "$? $((SECONDS - start))" >"$reports/$stage.end"
      done
    ) </dev/null &
    jobs=($!)
    set +m
  fi
  start=$SECONDS
  last=${stages[-1]}
  printf '\n\033[1m=== %s\033[0m\n' "$last"
  run_stage "$last"
  note "$last" $? $((SECONDS - start))
  wait "${jobs[@]}"
  for stage in "${others[@]}"; do
    printf '\n\033[1m=== %s\033[0m\n' "$stage"
    cat "$reports/$stage.log"
    read -r code seconds <"$reports/$stage.end"
    note "$stage" "$code" "$seconds"
  done
  jobs=()
done

printf '\n'
printf '%s\n' "${rows[@]}"
python scripts/junit_totals.py "$failed_stages" "$reports"
[ "$failed_stages" -eq 0 ]
