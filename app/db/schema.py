"""The database schema that this code needs, as integers.

`HEAD` is the schema that this release's migrations create and that its code expects. Each
migration records in the table `schema_version` the lowest `HEAD` of older code that still works
after it (`LOWEST_COMPATIBLE` is that number for the newest migration). Code works with a database
if

    recorded lowest_compatible <= HEAD of the code <= recorded version

So the old colour stays ready after the expanding migrations of the new release: its `HEAD` is
between the two numbers. A check for equality would make it unready in the middle of a swap.
"""

from __future__ import annotations

from psycopg import errors

from app.db.pool import Database

HEAD = 2
LOWEST_COMPATIBLE = 1


def revision(version: int) -> str:
    """Return the name of a migration."""
    return f"{version:04d}"


def judge(version: int, lowest_compatible: int) -> str | None:
    """Return why this code cannot work with such a database, or None if it can."""
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
