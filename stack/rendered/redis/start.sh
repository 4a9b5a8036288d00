# Managed by Airlift. Starts Redis; when it refuses its append-only files because they are damaged, sets them aside and starts it
# empty: it holds hints, limits and caches, and a service that waits for them is worth less than one that has lost them. An end
# that a power cut left short is none of this: Redis mends that itself.
set -u
conf=/etc/airlift/redis/redis.conf
files=/data/appendonlydir
name=appendonly.aof

stopping=
server=
trap 'stopping=yes; [ -z "$server" ] || kill -TERM "$server" 2>/dev/null' TERM INT

redis-server "$conf" &
server=$!
# A signal ends the waiting, not the server.
while :; do
    wait "$server"
    code=$?
    kill -0 "$server" 2>/dev/null || break
done

# Redis ends so when it cannot load its files, and for other reasons, which are not theirs.
if [ -n "$stopping" ] || [ "$code" -ne 1 ] || [ ! -d "$files" ]; then exit "$code"; fi
if found=$(redis-check-aof "$files/$name.manifest" 2>&1); then exit "$code"; fi

# One from before is kept, for whoever wants to look.
set -- /data/damaged-*
while [ "$#" -gt 1 ]; do
    rm -rf "$1"
    shift
done
aside=/data/damaged-$(date -u +%Y%m%dT%H%M%SZ)
mv "$files" "$aside" || exit "$code"
printf '%s\n' "$found" >"$aside/check.txt" || :
echo "Airlift: the append-only files are damaged; set aside as $aside (what is wrong is in its check.txt). Redis starts empty."
exec redis-server "$conf"
