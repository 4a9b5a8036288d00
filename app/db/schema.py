"""Which database schema this code needs, in integers.

`HEAD` is the schema that this release's migrations lead to and its code was written for. Each
migration records in the table `schema_version` the lowest `HEAD` of older code that still works
once it has run (`LOWEST_COMPATIBLE` is that number for the newest migration). So code is at home
in a database if

    recorded lowest_compatible <= HEAD of the code <= recorded version

and the old colour stays ready after the new release's expanding migrations: its `HEAD` lies in
between. An exact match would make it unready in the middle of a swap.
"""

from __future__ import annotations

from psycopg import errors

from app.db.pool import Database

HEAD = 2
LOWEST_COMPATIBLE = 1


def revision(version: int) -> str:
    """The name of a migration."""
    return f"{version:04d}"


def judge(version: int, lowest_compatible: int) -> str | None:
    """Return why this code cannot work on such a database, or None if it can."""
    if version < HEAD:
        return f"the schema is {version}, this release needs {HEAD}: run the migrations"
    if lowest_compatible > HEAD:
        return (
            f"the schema is {version} and supports releases of schema {lowest_compatible} or "
            f"later, this release has {HEAD}"
        )
    return None


async def check(database: Database) -> str | None:
    """Check the database; raise `DatabaseUnavailableError` if it does not answer."""
    try:
        row = await database.fetch_one(
            "SELECT version, lowest_compatible FROM schema_version ORDER BY version DESC LIMIT 1"
        )
    except errors.UndefinedTable:
        return f"there is no schema yet, this release needs {HEAD}: run the migrations"
    except errors.InsufficientPrivilege:
        return "the database user cannot read schema_version: run the migrations as the owner"
    if row is None:
        return f"there is no schema yet, this release needs {HEAD}: run the migrations"
    return judge(row["version"], row["lowest_compatible"])
