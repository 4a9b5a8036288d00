"""Run the migrations: one run at a time per site, with short lock timeouts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import errors
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from app.db import schema
from app.db.pool import conninfo
from app.observability.logging import get_logger
from app.settings import Settings

_LOCK_KEY = 0x6169726C696674  # "airlift"
_LOCK_TIMEOUT = "500ms"
_ATTEMPTS = 20

log = get_logger("app.migrate")


class MigrationError(Exception):
    """A migration failed or timed out; it can be run again."""


def migrate(
    settings: Settings,
    *,
    target: str = "head",
    connect_seconds: float = 30,
    lock_seconds: float = 60,
) -> int:
    """Migrate the schema to `target` and return its version; do nothing if it is there already.

    After a rollback, the schema may be newer than this release, which does not know the newer
    migrations. Then do nothing if this release can use the schema, else raise `MigrationError`.
    """
    with _connect(settings, connect_seconds) as guard:
        _take_lock(guard, lock_seconds)
        before = _version(guard)
        if target == "head" and before > schema.HEAD:
            _check_ahead(guard, before)
        else:
            _upgrade(settings, target)
        after = _version(guard)
    log.info("schema is up to date", version=after, before=before, changed=before != after)
    return after


@contextmanager
def _connect(settings: Settings, seconds: float) -> Iterator[psycopg.Connection]:
    """Yield a connection that holds the advisory lock; wait while Postgres is starting."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection = psycopg.connect(
                conninfo(settings, application="airlift-migrate"), autocommit=True
            )
            break
        except psycopg.OperationalError as error:
            refused = isinstance(error, errors.InvalidPassword) or "authentication" in str(error)
            if refused or time.monotonic() >= deadline:
                raise MigrationError(
                    f"cannot connect to Postgres: {str(error).splitlines()[0]}"
                ) from None
            time.sleep(0.5)
    with connection:
        yield connection


def _take_lock(connection: psycopg.Connection, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() >= deadline:
            raise MigrationError(f"another migration has been running for {seconds:.0f} s")
        time.sleep(0.25)


def _version(connection: psycopg.Connection) -> int:
    try:
        row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    except errors.UndefinedTable:
        return 0
    return int(row[0] or 0) if row else 0


def _check_ahead(connection: psycopg.Connection, version: int) -> None:
    """Raise `MigrationError` if the schema of a later release is incompatible with this one."""
    row = connection.execute(
        "SELECT lowest_compatible FROM schema_version WHERE version = %s", (version,)
    ).fetchone()
    problem = schema.judge(version, row[0]) if row else None
    if problem:
        raise MigrationError(problem)


def _upgrade(settings: Settings, target: str) -> None:
    def connect() -> psycopg.Connection:
        return psycopg.connect(
            conninfo(
                settings,
                application="airlift-migrate",
                options=f"-c lock_timeout={_LOCK_TIMEOUT} -c statement_timeout=0",
            )
        )

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with engine.connect() as connection:
                command.upgrade(config(connection), target)
            return
        except DBAPIError as error:
            # While a migration waits for a lock, all requests queue behind it: keep it short.
            if not isinstance(error.orig, errors.LockNotAvailable):
                message = str(error.orig).splitlines()[0]
                raise MigrationError(f"the migration failed and was undone: {message}") from error
            if attempt == _ATTEMPTS:
                raise MigrationError(
                    f"another session holds a table that the migration needs; it was tried "
                    f"{_ATTEMPTS} times, {_LOCK_TIMEOUT} each, and undone: end that session "
                    "(pg_stat_activity shows it) or try later"
                ) from error
            log.warning("a table is in use, trying again", attempt=attempt)
            time.sleep(min(0.25 * attempt, 2))


def config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration; there is no file."""
    result = Config()
    result.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    result.attributes["connection"] = connection
    return result


def target_of(version: int | None) -> str:
    """Return the revision to migrate to; None means the newest."""
    return "head" if version is None else schema.revision(version)
