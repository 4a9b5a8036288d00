#!/usr/bin/env bash
# Sets up what this machine lacks to build, test and demonstrate Airlift: Debian packages, a running container
# engine, and .venv from the locked requirements. Does nothing, quickly, when all is there.
#   scripts/dev-setup.sh [--check | --tests]   --check only says what is missing (exit code 1 if anything is);
#                                              --tests also brings what only tests need
set -euo pipefail
cd "$(dirname "$0")/.."

readonly LOCK=requirements/dev.txt STAMP=.venv/.airlift-lock CACHE=.cache
readonly PYTHON_MINIMUM=3.11
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

# Command → the package that contains it. `docker` and its parts depend on the suite, see below.
packages_for() {
  case $1 in
    docker) case $suite in
        12) echo docker.io ;;
        *) echo docker.io docker-cli docker-buildx ;;
      esac ;;
    buildx) echo docker-buildx ;;
    venv) echo python3-venv ;;
    python) echo python3 ;;
    ssh-keygen) echo openssh-client ;;
    ip) echo iproute2 ;;
    keyring) echo debian-archive-keyring ;;
    certificates) echo ca-certificates ;;
    mkfs.vfat) echo dosfstools ;;
    mcopy) echo mtools ;;
    nft) echo nftables ;;
    *) echo "$1" ;;
  esac
}

# The Python that .venv is made from: any on PATH that is new enough and can make one.
find_python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (${PYTHON_MINIMUM/./, }))" 2> /dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

docker_client() { command -v /usr/bin/docker || command -v docker; }
engine_answers() { "$(docker_client)" version > /dev/null 2>&1; }

# Docker 23 and later build through a plug-in of its own; older clients have BuildKit inside.
buildx_missing() {
  local major
  major=$("$(docker_client)" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
  [ "$major" -ge 23 ] && ! "$(docker_client)" buildx version > /dev/null 2>&1
}

missing_tools() {
  local tool
  for tool in git gpg mmdebstrap ssh-keygen ip iptables zstd curl make mkfs.vfat mcopy zsh fish; do
    command -v "$tool" > /dev/null || echo "$tool"
  done
  for tool in "${for_tests[@]}"; do
    command -v "$tool" > /dev/null || echo "$tool"
  done
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo keyring
  [ -e /etc/ssl/certs/ca-certificates.crt ] || echo certificates
  [ -x .venv/bin/python ] || find_python > /dev/null || printf '%s\n' python venv
  if ! docker_client > /dev/null || ! command -v dockerd > /dev/null && ! engine_answers; then
    echo docker
  elif buildx_missing; then
    echo buildx
  fi
}

venv_is_current() {
  [ "$(cat "$STAMP" 2> /dev/null)" = "$(sha256sum "$LOCK")" ] && .venv/bin/python -c '' 2> /dev/null
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo "$@"
  else
    fail "this needs root and there is no sudo: $*" "Become root (su -) and run the same again."
  fi
}

install_packages() {
  local tool packages=()
  [ -r /etc/os-release ] || fail "this is not Debian; missing here: $*"
  # shellcheck source=/dev/null
  suite=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_ID:-}") || suite=
  case $suite in
    12 | 13) ;;
    *) fail "missing here: $*" \
      "Packages are installed by themselves on Debian 12 and 13 only. Install these yourself, then run this again." ;;
  esac
  # shellcheck disable=SC2207 # names of packages have no blanks
  for tool in "$@"; do packages+=($(packages_for "$tool")); done
  say "installing ${packages[*]}"
  mkdir -p "$CACHE"
  if ! as_root apt-get update -qq > "$CACHE/apt.log" 2>&1 \
    || ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      "${packages[@]}" >> "$CACHE/apt.log" 2>&1; then
    tail -n 5 "$CACHE/apt.log" >&2
    fail "apt-get could not install ${packages[*]} (whole log: $CACHE/apt.log)" \
      "If it cannot reach its mirror: check the network of this machine, or a proxy in /etc/apt/apt.conf.d, then run this again."
  fi
}

start_engine() {
  local pid='' log waited=0
  mkdir -p "$CACHE"
  if [ "$(id -u)" -ne 0 ] && pgrep -x dockerd > /dev/null; then
    fail "the container engine runs, but $(id -un) may not use it" \
      "Run as root (sudo make demo), or join the group and log in again: sudo usermod -aG docker $(id -un)"
  fi
  say "starting the container engine"
  if [ -d /run/systemd/system ]; then
    as_root systemctl start docker || fail "the container engine does not start; see: journalctl -u docker"
    log="journalctl -u docker"
  else
    # No systemd here (a container, a minimal VM): started by hand; it ends with the machine.
    # shellcheck disable=SC2016 # the inner shell expands it
    as_root sh -c 'nohup dockerd > "$1/dockerd.log" 2>&1 < /dev/null & echo $! > "$1/dockerd.pid"' sh "$CACHE"
    pid=$(cat "$CACHE/dockerd.pid") log=$CACHE/dockerd.log
  fi
  until engine_answers; do
    waited=$((waited + 1))
    if [ "$waited" -gt 120 ] || { [ -n "$pid" ] && [ ! -d "/proc/$pid" ]; }; then
      if [ -n "$pid" ]; then tail -n 5 "$log" >&2; fi
      fail "the container engine does not answer" "Its log: $log"
    fi
    sleep 0.5
  done
}

make_venv() {
  local python code=0
  python=$(find_python) || fail "no Python $PYTHON_MINIMUM or newer that can make a virtual environment" \
    "Debian 12 and 13 have one: apt-get install python3 python3-venv"
  if ! .venv/bin/python -c '' 2> /dev/null; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
  fi
  say "installing the locked requirements into .venv (a few minutes the first time)"
  scripts/locked-install.sh .venv/bin/python "$LOCK" > "$CACHE/pip.log" 2>&1 || code=$?
  [ "$code" -eq 0 ] || tail -n 5 "$CACHE/pip.log" >&2
  case $code in
    0) sha256sum "$LOCK" > "$STAMP" ;;
    3) fail "$LOCK does not fit together (whole log: $CACHE/pip.log)" "Take back its last change, or renew it: make lock" ;;
    *) fail "pip could not install $LOCK (whole log: $CACHE/pip.log)" \
      "If it cannot reach the package index: check the network of this machine, or PIP_INDEX_URL, then run this again." ;;
  esac
}

suite=
for_tests=()
if [ "${1:-}" = --tests ]; then for_tests=(docker-registry skopeo nft); fi
mapfile -t missing < <(missing_tools)
if [ "${1:-}" = --check ]; then
  [ ${#missing[@]} -eq 0 ] || echo "missing: ${missing[*]}"
  engine_answers || { echo "the container engine does not answer" && missing+=(engine); }
  venv_is_current || { echo ".venv is not what $LOCK says" && missing+=(.venv); }
  [ ${#missing[@]} -eq 0 ]
  exit
fi
mkdir -p "$CACHE"
if [ ${#missing[@]} -gt 0 ]; then install_packages "${missing[@]}"; fi
# Tests start a registry of their own; the package's service would listen for everybody.
if [[ " ${missing[*]} " = *" docker-registry "* ]] && [ -d /run/systemd/system ]; then
  as_root systemctl disable --quiet --now docker-registry.service
fi
if ! engine_answers; then start_engine; fi
if ! venv_is_current; then make_venv; fi
