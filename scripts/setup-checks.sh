# shellcheck shell=bash
# The checks of setup-environment.sh, which defines note, bad, setting, docker, source and the readonly names.
# All of them run before the script ends with the code of the first that failed.

# shellcheck disable=SC2154 # those of setup-environment.sh
readonly ENGINE_MINIMUM=20.10
registries=no
newer() { printf '%s\n%s\n' "$1" "$2" | sort --check --version-sort 2> /dev/null; } # MINIMUM FOUND
from_registries() { [ "$source" = registry ] || { [ "$source" = auto ] && [ "$registries" = yes ]; }; }

check_tools() {
  local tool missing=()
  for tool in curl awk sed flock timeout; do command -v "$tool" > /dev/null || missing+=("$tool"); done
  if [ ${#missing[@]} -gt 0 ]; then
    bad 3 tools "missing: ${missing[*]}" "apt-get install curl gawk sed util-linux coreutils"
  fi
  if [ -z "$docker" ]; then
    bad 3 docker "not installed" "apt-get install docker.io docker-cli, or scripts/dev-setup.sh"
    return
  fi
  local version
  version=$("$docker" version --format '{{.Server.Version}}' 2> /dev/null) || version=
  if [ -z "$version" ]; then
    bad 4 engine "does not answer to $(id -un)" "start it (systemctl start docker), or join its group (usermod -aG docker $(id -un))"
    return
  fi
  if newer "$ENGINE_MINIMUM" "$version"; then
    note ok engine 0 "Docker $version"
  else
    bad 3 engine "Docker $version is older than $ENGINE_MINIMUM" "install a newer one"
    return
  fi
  if scripts/compose.sh --which > "$work/compose" 2>&1; then
    note ok compose 0 "$(tail -n 1 "$work/compose")"
  else
    bad 3 compose "$(grep compose: "$work/compose" | tail -n 1)" "install docker-compose-plugin, or Debian 13's docker-compose"
  fi
}

check_room() {
  local free root wanted=${STACK_MIN_DISK_MB:-4000} memory least=${STACK_MIN_MEMORY_MB:-1500} place
  root=$("$docker" info --format '{{.DockerRootDir}}' 2> /dev/null || true)
  for place in . "$root"; do
    # An engine on another machine has its disk there.
    [ -d "$place" ] || continue
    free=$(df -Pm "$place" | awk 'NR == 2 {print $4}')
    if [ "$free" -ge "$wanted" ]; then
      note ok disk 0 "$free MB free in $place"
    else
      bad 5 disk "$free MB free in $place, $wanted are needed" "free space (docker system df lists what the engine holds)"
    fi
  done
  memory=$(awk '/^MemAvailable:/ {print int($2 / 1024)}' /proc/meminfo)
  if [ "$memory" -ge "$least" ]; then
    note ok memory 0 "$memory MB available"
  else
    bad 6 memory "$memory MB available, $least are needed" "stop other programs, or add memory"
  fi
}

check_ports() {
  local name port ours address names
  ours=$("$docker" ps --filter "label=com.docker.compose.project=$PROJECT" --format '{{.Ports}}' 2> /dev/null || true)
  address=$(setting STACK_ADDRESS 127.0.0.1)
  [ "$address" != 0.0.0.0 ] || address=127.0.0.1
  names=(PORT=8000 HTTP_PORT=8080 PROMETHEUS_PORT=9090 ALERTMANAGER_PORT=9093)
  # Its port may be another's where it does not run.
  if from_registries && [[ ,$(setting COMPOSE_PROFILES grafana), == *,grafana,* ]]; then
    names+=(GRAFANA_PORT=3000)
    if [ "$(setting GF_SECURITY_ADMIN_PASSWORD admin)" = admin ]; then
      note warning "Grafana's password" 0 "is the example's (admin)" "set GF_SECURITY_ADMIN_PASSWORD in .env; after the first start: stack/README.md"
    fi
  fi
  for name in "${names[@]}"; do
    port=$(setting "${name%=*}" "${name#*=}")
    if [[ $ours == *":$port->"* ]]; then
      note ok "port $port" 0 "held by this stack"
    elif timeout 2 bash -c "exec 3<> /dev/tcp/$address/$port" 2> /dev/null; then
      bad 7 "port $port" "another program listens on $address:$port" "stop it, or set ${name%=*} in .env"
    else
      note ok "port $port" 0 "free"
    fi
  done
}

knock() { timeout 4 bash -c "exec 3<> /dev/tcp/$1/443" 2> /dev/null; }
# True if the engine still has every image that an earlier run built.
built() {
  local images
  [ -e "$OVERRIDES" ] && mapfile -t images < <(sed -n 's/^[A-Z_]*_IMAGE=//p' "$OVERRIDES") &&
    "$docker" image inspect "${images[@]}" > /dev/null 2>&1
}
# True if this machine's own Debian mirror answers, the way apt reaches it.
mirror() {
  local url release
  # shellcheck disable=SC2016 # apt's own names
  read -r url release < <(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2> /dev/null) &&
    timeout 30 /usr/lib/apt/apt-helper -o Acquire::Retries=0 download-file "${url}dists/$release/InRelease" "$work/InRelease" > /dev/null 2>&1
}
check_network() {
  local host silent='' answering='' debian="images are built from Debian packages, and Grafana, which Debian does not have, is omitted"
  while read -r host; do
    [ "$host" != docker.io ] || host=registry-1.docker.io
    if knock "$host"; then
      answering+="${answering:+, }$host"
    elif timeout 4 getent hosts "$host" > /dev/null; then
      silent+="${silent:+, }$host"
    else
      silent+="${silent:+, }$host (no address in DNS)"
    fi
  done < <(grep -oE '_IMAGE:-[a-z0-9-]+\.[a-z0-9.-]+/' docker-compose.yml | sed -E 's/.*:-//; s,/,,' | sort -u)
  if [ -z "$silent" ]; then
    registries=yes
    note ok registries 0 "answer: $answering"
  elif [ "$source" = registry ]; then
    bad 8 registries "no answer from $silent" "check network, /etc/resolv.conf and proxy; or --source debian"
  elif built; then
    note warning registries 0 "no answer from $silent: $debian (those of the last run still exist)"
  elif mirror; then
    note warning registries 0 "no answer from $silent: $debian"
  else
    bad 8 network "no answer from $silent, nor from this machine's Debian mirror" "check network, /etc/resolv.conf and proxy: apt-get update"
  fi
  # TLS and apt refuse a clock that is years off; the tree itself is a lower bound.
  local newest
  newest=$(git log -1 --format=%ct 2> /dev/null || stat -c %Y docker-compose.yml)
  if [ "$(date +%s)" -lt $((newest - 86400)) ]; then
    note warning time 0 "the clock says $(date -u +%Y-%m-%d), before this tree was made" "set it (timedatectl set-ntp true)"
  else
    note ok time 0 "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
  fi
}
