#!/usr/bin/env bash
# Runs a newcomer's commands in a plain Debian of each suite: the set-up of both README commands, `make setup` (demo) and
# `make setup-tests` (test), in a fresh clone of the last commit, on a root made by mmdebstrap with git and make only.
#   scripts/newcomer.sh [--stack] [SUITE ...]      suites: bookworm trixie; --stack also raises the local stack there (make stack)
# This machine's certificates and settings of pip, apt and proxies go in; its packages and downloads do not. The root runs as
# a container, without systemd: set-up starts a container engine inside by hand. Nothing is left behind but the logs.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly LOGS=.cache/newcomer
docker=$(command -v /usr/bin/docker || command -v docker)
work=$(mktemp -d)
made=()

remove() {
  local name
  for name in "${made[@]}"; do
    "$docker" rm --force --volumes "$name" > /dev/null 2>&1 || true
    "$docker" volume rm --force "$name-docker" "$name-containerd" > /dev/null 2>&1 || true
    "$docker" image rm --force "$name" > /dev/null 2>&1 || true
  done
  made=()
}
trap 'remove; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Where a privileged container cannot be had, nearly the same, piece by piece, as for the lab's hosts (molecule/lab/vars.yml).
rights() {
  if "$docker" run --rm --privileged --network none "$1" true > /dev/null 2>&1; then
    echo --privileged
  else
    printf '%s\n' --cap-add=ALL --cap-drop=SYS_RESOURCE --security-opt=seccomp=unconfined \
      --security-opt=systempaths=unconfined '--device-cgroup-rule=a *:* rwm'
  fi
}

# Names of variables, not values: a proxy's password has no business in a command line.
variables() {
  local name
  for name in $(compgen -e); do
    case $name in
      PIP_* | SSL_CERT_FILE | REQUESTS_CA_BUNDLE | http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY)
        printf '%s\n' --env "$name" ;;
    esac
  done
}

# Files and folders that the settings name: certificates, a constraint file, folders of wheels, an index on the disk.
named() {
  local path
  {
    printf '%s\n' "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}" "${PIP_CONFIG_FILE:-}"
    .venv/bin/python -m pip config list | grep -oE "(file://)?/[^' ]+" | sed 's,^file://,,'
  } | while read -r path; do
    # An index refers to files beside itself.
    [ "${path##*/}" != simple ] || path=${path%/*}
    # The newcomer's own packages bring this one, with the certificates passed in.
    if [ -e "$path" ] && [ "$path" != /etc/ssl/certs/ca-certificates.crt ]; then echo "$path"; fi
  done | sort -u
}

# Copies this machine's certificates and settings of pip to where the newcomer has theirs: FOLDER
gather() {
  local folder=$1 path
  mkdir -p "$folder/usr/local/share/ca-certificates" "$folder/root/.config/pip"
  find /usr/local/share/ca-certificates -name '*.crt' -exec cp -L {} "$folder/usr/local/share/ca-certificates/" \; 2> /dev/null || true
  for path in /etc/pip.conf /etc/xdg/pip/pip.conf; do
    if [ -r "$path" ]; then
      mkdir -p "$folder${path%/*}"
      cp -L "$path" "$folder$path"
    fi
  done
  for path in ~/.pip/pip.conf ~/.config/pip/pip.conf; do
    if [ -r "$path" ]; then cp -L "$path" "$folder/root/.config/pip/pip.conf"; fi
  done
}

# All commands of one suite; the output is the log.
try_suite() {
  local suite=$1 name=$2 path
  local -a rights variables mounts=()
  mmdebstrap --variant=minbase --include=git,make --aptopt="$work/apt.conf" "$suite" - | "$docker" import - "$name"
  mapfile -t rights < <(rights "$name")
  mapfile -t variables < <(variables)
  while read -r path; do mounts+=("--volume=$path:$path:ro"); done < <(named)
  # An overlay file system cannot lie on another: the engine inside has volumes for its own.
  "$docker" run --detach --init --name "$name" --hostname newcomer --cgroupns=private "${rights[@]}" "${variables[@]}" "${mounts[@]}" \
    --volume "$name-docker:/var/lib/docker" --volume "$name-containerd:/var/lib/containerd" "$name" \
    sh -c "awk '\$3 ~ /^cgroup/ {print \$2}' /proc/mounts | while read -r tree; do mount -o remount,bind,rw \"\$tree\"; done; exec sleep infinity"
  tar -C "$work/settings" --owner=0 --group=0 -c . | "$docker" exec --interactive "$name" tar -C / -x --no-overwrite-dir
  tar -C "$work" --owner=0 --group=0 -c airlift | "$docker" exec --interactive "$name" tar -C /root -x
  "$docker" exec --interactive --env STACK="$stack" --workdir /root/airlift "$name" bash -eux << 'EOF'
! command -v python3 docker
make setup
make setup-tests
scripts/dev-setup.sh --check
test -z "$(make setup setup-tests)"
docker version
.venv/bin/ansible-playbook --version
.venv/bin/pytest --version
test -z "$(git status --porcelain)"
if [ "$STACK" = yes ]; then
  make stack || { tail -n 60 .cache/stack/setup.log; exit 1; }
  curl --fail http://127.0.0.1:8000/health/ready
  curl --fail http://127.0.0.1:8080/predict -H 'Content-Type: application/json' -d '{"data": [1, 2, 3, 4]}'
  make stack
  make stack-down
  # By hand, with the images that are there now.
  cp .env.example .env
  scripts/compose.sh up --detach --no-build
  curl --fail --retry 30 --retry-delay 1 --retry-all-errors http://127.0.0.1:8000/health/ready
  scripts/compose.sh down --volumes
  test -z "$(docker ps --all --quiet)$(docker volume ls --quiet)"
fi
EOF
}

stack=no
if [ "${1:-}" = --stack ]; then
  stack=yes
  shift
fi
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)
mkdir -p "$LOGS"
git clone --quiet --depth 1 "file://$PWD" "$work/airlift"
gather "$work/settings"
# A proxy and the like; mmdebstrap leaves it in the root for the newcomer's own apt.
{ echo 'Acquire::Retries "3";'; apt-config dump 2> /dev/null | grep -E '^Acquire::(https?::|Check-)' || true; } > "$work/apt.conf"
failed=0
for suite in "${suites[@]}"; do
  log=$LOGS/$suite.log start=$SECONDS result=ok
  made+=("newcomer-$suite-$$")
  # In a shell of its own, and not as a condition: `set -e` would not count inside.
  set +e
  (set -e; try_suite "$suite" "${made[-1]}") > "$log" 2>&1 < /dev/null
  code=$?
  set -e
  [ "$code" -eq 0 ] || result=FAILED failed=1
  printf 'newcomer: %-9s %-7s %5d s  %s\n' "$suite" "$result" $((SECONDS - start)) "$log"
  [ "$result" = ok ] || tail -n 8 "$log" >&2
  remove
done
exit "$failed"
