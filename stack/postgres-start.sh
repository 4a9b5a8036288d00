#!/bin/sh
# The local stack's Postgres: makes the cluster once, beside its place and renamed into it, as the role postgres does on a site
# (roles/postgres/tasks/initdb.yml; a test compares the arguments), then becomes the server.
set -eu
home=/var/lib/postgresql/home
if [ ! -d "$home/data" ]; then
    rm -rf "$home/data.staging"
    initdb --pgdata="$home/data.staging" --username=postgres --auth-local=peer --auth-host=reject --encoding=UTF8 \
        --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 --data-checksums
    mv "$home/data.staging" "$home/data"
fi
exec postgres -D "$home/data" -c config_file=/etc/airlift/postgres/postgresql.conf
