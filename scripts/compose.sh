#!/usr/bin/env bash
# Docker Compose for the local stack: scripts/compose.sh ps, … up, … logs app. It takes the installed Compose if that is version 2.17
# or newer, else Debian 13's, which apt's signatures vouch for, extracted once into .cache/compose (Debian 12's own is version 1).
# Where scripts/stack_images.py has built images from Debian packages, those are used.
#   scripts/compose.sh --which     print which Compose it would run; fetch nothing
set -euo pipefail
cd "$(dirname "$0")/.."

readonly FETCHED=.cache/compose/docker-compose MINIMUM=2.17
readonly OVERRIDES=.cache/stack/images.env

fail() {
  printf 'compose: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '         %s\n' "$line" >&2; done
  exit 1
}

# True if a command's Compose is new enough: COMMAND...
new_enough() {
  local version
  version=$("$@" version --short 2> /dev/null) || return 1
  printf '%s\n%s\n' "$MINIMUM" "${version#v}" | sort --check --version-sort 2> /dev/null
}

can_fetch() {
  command -v mmdebstrap > /dev/null || fail "no Docker Compose $MINIMUM or newer, and no mmdebstrap to fetch it with" \
    "Install docker-compose-plugin (Docker's repository), docker-compose (Debian 13), or: apt-get install mmdebstrap"
}

fetch() {
  can_fetch
  echo "compose: fetching Debian 13's docker-compose, once" >&2
  local work
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$work'" EXIT
  # Without the caller's descriptors: mmdebstrap's own would get numbers of two digits, which its shell cannot redirect to.
  if ! mmdebstrap --quiet --variant=extract --aptopt='Acquire::Retries "3"' --include=docker-compose trixie "$work/root.tar" \
    < /dev/null > "$work/log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; then
    grep -E '^[EW]:|[Ee]rror' "$work/log" | tail -n 8 >&2
    fail "Debian 13's docker-compose cannot be fetched" "Check that this machine reaches a Debian mirror: apt-get update"
  fi
  tar -C "$work" -xf "$work/root.tar" ./usr/libexec/docker/cli-plugins/docker-compose
  mkdir -p "${FETCHED%/*}"
  # Beside its place, then renamed: one that was cut short must not be found by the next run.
  cp "$work/usr/libexec/docker/cli-plugins/docker-compose" "$FETCHED.$$"
  mv "$FETCHED.$$" "$FETCHED"
}

# Sets `compose` to one that this machine has.
found() {
  local docker
  for docker in docker /usr/bin/docker; do
    if new_enough "$docker" compose; then
      compose=("$docker" compose)
      return
    fi
  done
  if new_enough docker-compose; then
    compose=(docker-compose)
    return
  fi
  compose=("$PWD/$FETCHED")
  new_enough "$FETCHED"
}

if [ "${1:-}" = --which ]; then
  if found; then
    echo "${compose[*]} ($("${compose[@]}" version --short))"
  else
    can_fetch
    echo "Debian 13's docker-compose, fetched on the first use"
  fi
  exit
fi
if ! found; then
  fetch
  found || fail "$FETCHED does not run here" "Remove it and run the same again: rm $FETCHED"
fi
files=()
if [ -e .env ]; then files+=(--env-file .env); else files+=(--env-file .env.example); fi
if [ -e "$OVERRIDES" ]; then files+=(--env-file "$OVERRIDES"); fi
exec "${compose[@]}" "${files[@]}" "$@"
