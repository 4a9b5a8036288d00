#!/usr/bin/env bash
# Runs every molecule scenario of the roles, each with its own hosts.
#   scripts/molecule-test.sh [PREFIX]     also write pytest's reports: PREFIX-SCENARIO.xml
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
[ $# -eq 0 ] || AIRLIFT_JUNIT=$(realpath -m "$1")
export AIRLIFT_JUNIT=${AIRLIFT_JUNIT:-}
exec molecule test --all
