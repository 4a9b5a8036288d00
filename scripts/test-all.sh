#!/usr/bin/env bash
# Runs every test stage in order, keeps going after a failed one, and ends with one table and one
# closing line "N passed, N failed". Exit code 0 only if every stage passed.
#   scripts/test-all.sh [stage ...]      stages: lint unit molecule site
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export PATH="$PWD/.venv/bin:$PATH"
reports=.cache/reports
mkdir -p "$reports"
rm -f "$reports"/*.xml

cleanup() {
  # Tests leave no container behind, whatever happened to them.
  ansible-playbook -i molecule/lab/inventory.yml molecule/lab/destroy.yml >"$reports/destroy.log" 2>&1 || {
    echo "the lab could not be removed; see $reports/destroy.log and run: make lab-down" >&2
  }
}
trap cleanup EXIT

stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=(lint unit molecule site)
rows=()
failed_stages=0
for stage in "${stages[@]}"; do
  printf '\n\033[1m=== %s\033[0m\n' "$stage"
  start=$SECONDS
  case $stage in
    lint) make lint ;;
    unit) pytest tests/unit -n 2 --junitxml="$reports/unit.xml" ;;
    molecule) scripts/molecule-test.sh "$reports/molecule.xml" ;;
    site) pytest tests/e2e --junitxml="$reports/site.xml" ;;
    *) echo "no such stage: $stage (lint unit molecule site)" >&2; false ;;
  esac
  code=$?
  result=passed
  if [ "$code" -ne 0 ]; then
    result="FAILED (exit $code)"
    failed_stages=$((failed_stages + 1))
  fi
  rows+=("$(printf '%-10s %-18s %4d s' "$stage" "$result" $((SECONDS - start)))")
done

printf '\n'
printf '%s\n' "${rows[@]}"
python scripts/junit_totals.py "$failed_stages" "$reports"
[ "$failed_stages" -eq 0 ]
