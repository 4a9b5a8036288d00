"""Test new logins to Postgres and Redis from inside a container of the service.

It uses the credentials of the container's process, because pooled connections outlive a changed
password. It uses only libraries, so that it works with the code of any release. It prints a JSON
object with the reason of each refused login, or an empty text. An unavailable Redis is not a
refused login; readiness reports it.
"""

import json
import os
import pathlib

import psycopg
import redis

SECONDS = 5


def secret(name: str) -> str | None:
    """Return a secret of the container, or None."""
    file = pathlib.Path("/run/secrets", name)
    return file.read_text() if file.exists() else None


found = {"postgres": "", "redis": ""}
try:
    url, password = os.environ["DATABASE_URL"], secret("database_password")
    psycopg.connect(url, password=password, connect_timeout=SECONDS).close()
except psycopg.Error as error:
    found["postgres"] = str(error)
queue = os.environ.get("REDIS_URL")
try:
    if queue:
        redis.Redis.from_url(
            queue,
            password=secret("redis_password"),
            socket_timeout=SECONDS,
            socket_connect_timeout=SECONDS,
            **({"ssl_ca_certs": os.environ["REDIS_CA_FILE"]} if queue[:7] == "rediss:" else {}),
        ).ping()
except redis.AuthenticationError as error:
    found["redis"] = str(error)
except redis.RedisError:
    pass
print(json.dumps(found))
