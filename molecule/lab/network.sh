#!/bin/sh
# The lab's networks and the machine's packet rules for them: network.sh up|down PREFIX NETWORK_PREFIX [NAME=SUBNET_START …]
# One script and not a task each: it is a dozen quick calls. Prints a line for every change, nothing when all is as it should be.
set -eu

verb=$1 prefix=$2 network_prefix=$3
shift 3
docker=${LAB_DOCKER:-docker}
comment="airlift lab $prefix"

if [ "$(id -u)" -eq 0 ]; then sudo=; else sudo=sudo; fi

# rule CHAIN WORDS…: makes sure that it is there, or gone.
rule() {
    chain=$1
    shift
    if $sudo iptables -w 10 -C "$chain" "$@" -m comment --comment "$comment" 2> /dev/null; then
        if [ "$verb" = down ]; then
            $sudo iptables -w 10 -D "$chain" "$@" -m comment --comment "$comment"
            echo "rule removed: $chain $*"
        fi
    elif [ "$verb" = up ]; then
        $sudo iptables -w 10 -I "$chain" "$@" -m comment --comment "$comment"
        echo "rule added: $chain $*"
    fi
}

# An internal network is cut off from the world, not from the machine that carries it: the bridge's own address answers.
# The machine may talk to the lab; the lab only answers.
rule INPUT -i "$prefix-+" -m conntrack --ctstate NEW,INVALID -j DROP

here=$("$docker" network ls --filter "label=airlift.lab=$prefix" --format '{{ .Name }}')
for item in "$@"; do
    name=${item%%=*} start=${item#*=}
    # Where bridged frames pass iptables (br_netfilter), the engine's own isolation would drop what the lab's router forwards.
    rule DOCKER-USER -i "$prefix-$name" -o "$prefix-$name" -j ACCEPT
    there=no
    for network in $here; do [ "$network" != "$network_prefix-$name" ] || there=yes; done
    if [ "$verb$there" = upno ]; then
        "$docker" network create --internal --subnet "$start.0/24" --gateway "$start.1" --label "airlift.lab=$prefix" \
            --opt "com.docker.network.bridge.name=$prefix-$name" "$network_prefix-$name" > /dev/null
        echo "network added: $network_prefix-$name"
    elif [ "$verb$there" = downyes ]; then
        "$docker" network rm "$network_prefix-$name" > /dev/null
        echo "network removed: $network_prefix-$name"
    fi
done
