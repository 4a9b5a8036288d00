"""The connection pool, and how the service behaves when Postgres does not answer."""

from __future__ import annotations

import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection, InterfaceError, OperationalError
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from app.settings import Settings

Connection = AsyncConnection[DictRow]

# The errors of psycopg when the server is down, starting, stopping or too slow.
UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeout, PoolClosed, TooManyRequests)


class DatabaseUnavailableError(Exception):
    """Postgres is not available; the answer is 503, and a later attempt may succeed."""


def conninfo(settings: Settings, *, application: str, **extra: Any) -> str:
    """Return the connection string; the password comes from the secret, never from the URL."""
    if settings.database_url is None:
        raise DatabaseUnavailableError("DATABASE_URL is not set")
    if settings.database_password is not None:
        extra["password"] = settings.database_password.get_secret_value()
    return make_conninfo(
        settings.database_url,
        application_name=application,
        connect_timeout=5,
        # Detect a lost peer within seconds instead of hours.
        keepalives_idle=15,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20_000,
        **extra,
    )


async def _check(connection: Connection) -> None:
    """Find a connection that Postgres closed, without a query on each use.

    If the server closed an idle connection, its socket has data to read. Only then send a query:
    its failure tells the pool to replace the connection. A server that lost power sends nothing,
    and a query would not detect that sooner.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(connection)


class Database:
    """The connection pool of one process; it can be opened before Postgres is available."""

    def __init__(self, settings: Settings, *, application: str) -> None:
        self.configured = settings.database_url is not None
        self._timeout = settings.database_timeout_seconds
        self._pool: AsyncConnectionPool[Connection] | None = None
        if not self.configured:
            return
        self._pool = AsyncConnectionPool(
            conninfo(
                settings,
                application=application,
                options="-c statement_timeout=15s -c idle_in_transaction_session_timeout=30s",
            ),
            connection_class=AsyncConnection[DictRow],
            kwargs={"autocommit": True, "row_factory": dict_row},
            min_size=1,
            max_size=settings.database_pool_max,
            max_waiting=200,
            timeout=self._timeout,
            # Keep this short: after it, the next request starts the reconnection.
            reconnect_timeout=10,
            max_lifetime=1800,
            check=_check,
            open=False,
        )

    async def open(self) -> None:
        """Start to fill the pool; do not wait for Postgres."""
        if self._pool is not None:
            await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            await self._pool.close(timeout=5)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Yield a connection in autocommit mode; for several statements use `transaction()`.

        Raise `DatabaseUnavailableError` if Postgres does not answer in time.
        """
        if self._pool is None:
            raise DatabaseUnavailableError("DATABASE_URL is not set")
        try:
            async with self._pool.connection() as connection:
                yield connection
        except UNAVAILABLE as error:
            raise DatabaseUnavailableError(type(error).__name__) from error

    async def fetch_all(self, query: str, *parameters: Any) -> list[DictRow]:
        """Return all rows of one statement."""
        async with self.connection() as connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchall()

    async def fetch_one(self, query: str, *parameters: Any) -> DictRow | None:
        """Return the first row of one statement, or None."""
        async with self.connection() as connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchone()

    async def execute(self, query: str, *parameters: Any) -> int:
        """Run one statement and return the number of affected rows."""
        async with self.connection() as connection:
            cursor = await connection.execute(query.encode(), parameters)
            return cursor.rowcount
