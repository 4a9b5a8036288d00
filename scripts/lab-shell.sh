#!/bin/sh
# A shell on a machine of the lab: scripts/lab-shell.sh [HOST] [COMMAND…], where HOST is lab-jump, edge-1, …
# On the jump host as the operator, elsewhere as root (on the machine's console, which no firewall blocks).
set -eu

docker=$(command -v /usr/bin/docker || command -v docker) || {
    echo "lab-shell: no container engine here; run: make lab-up" >&2
    exit 1
}
host=${1:-lab-jump}
[ $# -eq 0 ] || shift
case $host in lab-*) ;; *) host=lab-$host ;; esac
user=root home=/root
if [ "$host" = lab-jump ]; then user=operator home=/opt/airlift; fi

if [ "$("$docker" container inspect --format '{{ .State.Running }}' "$host" 2> /dev/null)" != true ]; then
    echo "lab-shell: $host is not running. Machines that are:" >&2
    "$docker" ps --filter label=airlift.lab=lab --format '  {{ .Names }}' >&2
    echo "Raise the lab with: make lab-up" >&2
    exit 1
fi
tty=
if [ -t 0 ] && [ -t 1 ]; then tty=--tty; fi
if [ $# -eq 0 ]; then set -- bash --login; fi
# shellcheck disable=SC2086 # empty or one word
exec "$docker" exec --interactive $tty --user "$user" --workdir "$home" "$host" "$@"
