"""Databases that the site registered: one read-only query.

Each of these alone prevents writes:

- the role: the client's own database grants it only SELECT,
- a read-only transaction,
- the extended protocol, which accepts one statement,
- a cursor, which accepts only statements that return rows.

Rows come as JSON, a few at a time, and the server checks the size of each, so that neither long nor
wide results fill the memory. Error messages of the server may repeat data and are never passed on;
its error codes are.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus

from app.sources.base import (
    Access,
    Collection,
    Entry,
    Limits,
    PermanentSourceError,
    Refusal,
    RefusedSourceError,
    SourceError,
    TransientSourceError,
)
from app.sources.parse import TOO_LARGE, batched, read_record
from app.sources.schemas import DatabaseConfig, RegisteredDatabase

_ROW_BYTES = 262_144
_FETCH = 100
_WRITES = "not-read-only"
# Put the closing parentheses on a line of their own: a comment at the query's end must not
# hide them.
_WRAPPED = """SELECT CASE WHEN octet_length(line) <= {most} THEN line END
FROM (SELECT row_to_json(found)::text AS line FROM (
{query}
) AS found) AS lines"""


class DatabaseSource:
    """Runs a query on a registered database."""

    def __init__(
        self,
        registered: Mapping[str, RegisteredDatabase],
        limits: Limits,
        secrets: Path,
        access: Access | None = None,
    ) -> None:
        self._registered = dict(registered)
        self._limits = limits
        self._secrets = secrets
        self._access = access or Access()

    def check(self, config: DatabaseConfig, client: str) -> Refusal | None:
        """Return why a configuration is not accepted; the database checks the query itself."""
        mine = [
            name
            for name in sorted(self._registered)
            if self._access.allows(f"database:{name}", client)
        ]
        if config.source not in mine:
            known = ", ".join(mine) or "none"
            message = f"no such database is registered on this site (known: {known})"
            return Refusal("source", message, "source_not_registered")
        if config.query is None:
            return Refusal("query", "Field required", "missing")
        unused = [name for name in config.params if not _placeholder(name).search(config.query)]
        if unused:
            return Refusal(f"params.{unused[0]}", f"the query has no :{unused[0]}", "unused")
        return None

    def needs(self, config: DatabaseConfig) -> str | None:
        """Return None: every worker can run such a job."""
        return None

    async def available(self) -> list[str]:
        """Return no needs: nothing special is required."""
        return []

    async def collect(self, config: DatabaseConfig, client: str) -> Collection:
        """Return the rows of the query; connect when the first batch is read."""
        registered = self._registered.get(config.source)
        if registered is None or not self._access.allows(f"database:{config.source}", client):
            raise PermanentSourceError(
                "source-not-registered", f"no database {config.source} is registered on this site"
            )
        origin: dict[str, Any] = {"type": "database", "source": config.source}
        most = min(registered.max_rows or self._limits.max_records, self._limits.max_records)
        rows = self._rows(registered, config, origin)
        return Collection(batched(rows, most, _FETCH), origin)

    def _rows(
        self, registered: RegisteredDatabase, config: DatabaseConfig, origin: dict[str, Any]
    ) -> Iterator[Entry]:
        seconds = registered.timeout_seconds or self._limits.timeout_seconds
        with (
            _told(),
            self._connect(config.source, registered, seconds) as connection,
            _within(connection, seconds),
        ):
            total = 0
            for number, line in enumerate(_lines(connection, config), start=1):
                total += 0 if line is None else len(line)
                if total > self._limits.max_bytes:
                    raise RefusedSourceError(
                        "source-too-large",
                        f"the query gives more than {self._limits.max_bytes} bytes",
                    )
                origin["rows"] = number
                yield number, TOO_LARGE if line is None else read_record(line)

    def _connect(
        self, name: str, registered: RegisteredDatabase, seconds: float
    ) -> psycopg.Connection:
        secret = self._secrets / f"database_source_{name}"
        try:
            password = secret.read_text().strip() if secret.exists() else None
        except (OSError, UnicodeError):
            raise TransientSourceError(
                "password-unreadable", f"the password of {name} cannot be read"
            ) from None
        milliseconds = round(seconds * 1000)
        connection = psycopg.connect(
            make_conninfo(
                registered.url,
                **({} if password is None else {"password": password}),
                application_name="airlift-source",
                connect_timeout=5,
                tcp_user_timeout=20_000,
                options=f"-c default_transaction_read_only=on "
                f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} "
                f"-c idle_in_transaction_session_timeout=300s",
            )
        )
        connection.read_only = True
        return connection


def _lines(connection: psycopg.Connection, config: DatabaseConfig) -> Iterator[str | None]:
    """Yield each row as JSON, or None for a row that is too large."""
    query, values = numbered(config.query or "", config.params)
    _judge(connection, query)
    wrapped = _WRAPPED.format(query=query, most=_ROW_BYTES)
    cursor = psycopg.RawServerCursor(connection, "airlift")
    try:
        # The client wrote this text. It was parsed alone before, so it cannot close the parentheses
        # around it.
        cursor.execute(wrapped.encode(), values)
    except (errors.SyntaxError, errors.FeatureNotSupported):
        raise _not_read_only() from None
    cursor.itersize = _FETCH
    for row in cursor:
        yield row[0]


def numbered(query: str, params: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Replace each `:name` of `params` by `$1`, `$2`; leave casts and times unchanged.

    Return the query and the values in the order of their numbers.
    """
    query = query.strip().rstrip(";")
    for number, name in enumerate(params, start=1):
        query = _placeholder(name).sub(f"${number}", query)
    return query, list(params.values())


def _placeholder(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![:\w]):{re.escape(name)}\b")


def _judge(connection: psycopg.Connection, query: str) -> None:
    """Let the server parse the query alone: it must be one complete statement that returns rows."""
    connection.execute("SELECT")  # begins the transaction
    server = connection.pgconn
    parsed = server.prepare(b"airlift", query.encode())
    if parsed.status != ExecStatus.COMMAND_OK:
        raise errors.error_from_result(parsed, encoding="utf-8")
    if server.describe_prepared(b"airlift").nfields == 0:
        raise _not_read_only()


@contextmanager
def _within(connection: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Cancel the query after some seconds: a query can raise the server's own time limit."""
    timer = threading.Timer(seconds, lambda: connection.cancel_safe(timeout=5))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _told() -> Iterator[None]:
    """Convert database errors to `SourceError`, without the server's message."""
    try:
        yield
    except SourceError:
        raise
    except psycopg.Error as error:
        raise _translated(error) from None


def _not_read_only() -> RefusedSourceError:
    return RefusedSourceError(_WRITES, "the query does something else than read rows")


def _translated(error: psycopg.Error) -> SourceError:
    state = error.sqlstate or ""
    kind = f"{type(error).__name__}, SQLSTATE {state}"
    match error:
        case errors.ReadOnlySqlTransaction():
            return _not_read_only()
        case errors.InsufficientPrivilege():
            return RefusedSourceError(
                "permission-denied", f"the source's user may not do that ({kind})"
            )
        case errors.QueryCanceled() | errors.LockNotAvailable():
            return TransientSourceError("timeout", "the query did not end within its time")
        case errors.SyntaxError() if "multiple commands" in str(error):
            return RefusedSourceError("multiple-statements", "the query is more than one statement")
    if not state or state[:2] in ("08", "53", "57", "40", "28", "3D"):
        return TransientSourceError(
            "database-unavailable", f"the database cannot be used now ({kind})"
        )
    position = error.diag.statement_position
    where = f" at character {position}" if position else ""
    return PermanentSourceError("query-failed", f"the database refuses the query{where} ({kind})")
