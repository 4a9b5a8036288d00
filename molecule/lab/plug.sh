#!/bin/sh
# Connects a machine to more networks: plug.sh CONTAINER NETWORK=ADDRESS… Prints a line for every cable plugged in.
set -eu

container=$1
shift
docker=${LAB_DOCKER:-docker}
# shellcheck disable=SC2016 # the engine reads the template
plugged=$("$docker" container inspect --format '{{ range $name, $_ := .NetworkSettings.Networks }}{{ $name }} {{ end }}' "$container")
for item in "$@"; do
    case " $plugged" in
        *" ${item%%=*} "*) ;;
        *)
            "$docker" network connect --ip "${item#*=}" "${item%%=*}" "$container"
            echo "$item"
            ;;
    esac
done
