#!/usr/bin/python
"""A backup of a Postgres database, tested by restoring it once; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_backup
short_description: Take a backup of a database and test it
description:
  - Dumps the database of a running container while the service keeps writing. In the snapshot of
    the dump, it counts the rows of every table and computes a checksum of its contents.
  - Reads the dump again from disk, restores it into a temporary server without a network, and
    compares every table. Only an equal dump gets its name and its record.
  - Needs no password. The next run removes the leftovers of a killed one.
options:
  container: {description: Name of the running container., type: str, required: true}
  image: {description: Image of the temporary server., type: str, required: true}
  user: {description: Numeric uid:gid the server runs as in both., type: str, required: true}
  database: {description: Name of the database., type: str, required: true}
  directory: {description: Where backups are kept; made for root only., type: path, required: true}
  label: {description: What the backup is for; begins its file names., type: str, required: true}
  keep: {description: How many of the newest backups are kept., type: int, default: 3}
  timeout: {description: Seconds that all of it may take., type: int, default: 3600}
  memory: {description: Memory limit of the temporary server., type: str, default: 512m}
  scratch: {description: Name of its container., type: str, default: airlift-backup-scratch}
"""

RETURN = r"""
path: {description: The dump., type: str, returned: when a backup was taken}
sha256: {description: Checksum of the dump., type: str, returned: when a backup was taken}
bytes: {description: Size of the dump; in check mode of the database., type: int, returned: always}
tables: {description: Tables that were compared., type: int, returned: when a backup was taken}
rows: {description: Rows of all of them., type: int, returned: when a backup was taken}
seconds: {description: How long it took., type: float, returned: when a backup was taken}
pruned: {description: Older dumps removed., type: list, returned: when a backup was taken}
msg: {description: All that in a sentence., type: str, returned: always}
"""

import contextlib  # noqa: E402
import hashlib  # noqa: E402
import re  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.backup_files import (  # noqa: E402
    CHUNK,
    create,
    finish,
    flush,
    halves,
    human,
    only_one,
    prune,
    require_space,
    reread,
)
from ansible.module_utils.backup_servers import Scratch, Session, end_sessions, inside  # noqa: E402
from ansible.module_utils.host_module import answer  # noqa: E402
from ansible.module_utils.host_tools import RefusedError  # noqa: E402

Params = dict[str, Any]
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
SIGNALS = (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
# The first nine settings affect the text of a row and the quoting of names. The server's time
# limits are for the service's sessions: this session idles in its transaction during the dump.
SETTINGS = """
SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres';
SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C';
SET client_encoding = 'UTF8'; SET search_path = '';
SET quote_all_identifiers = off; SET row_security = off;
SET statement_timeout = 0; SET lock_timeout = 0; SET transaction_timeout = 0;
SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0;
"""
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n"
SIZE = "SELECT pg_database_size(current_database())"
START = """SELECT json_build_object(
  'snapshot', pg_export_snapshot(), 'version', current_setting('server_version'),
  'roles', (SELECT coalesce(json_agg(quote_ident(rolname)), '[]') FROM pg_roles
            WHERE rolname !~ '^pg_' AND rolname <> 'postgres'))"""
# What pg_dump dumps: not the objects that an extension creates. A sequence that was never used is
# one step before its start; a sequence that cycles cannot be compared.
RELATIONS = """SELECT json_build_object(
  'tables', coalesce(json_agg(name) FILTER (WHERE relkind = 'r'), '[]'),
  'sequences', coalesce(json_object_agg(name, value) FILTER (WHERE NOT seqcycle), '{}'))
FROM (SELECT c.relkind, format('%I.%I', n.nspname, c.relname) AS name, s.seqcycle,
             coalesce(pg_sequence_last_value(s.seqrelid), seqstart::numeric - seqincrement) AS value
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_sequence s ON s.seqrelid = c.oid
      WHERE c.relkind IN ('r', 'S') AND c.relpersistence <> 't'
        AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                        AND d.objid = c.oid AND d.deptype = 'e')
      ORDER BY name) AS relations"""


def dump(params: Params, snapshot: str, path: Path) -> str:
    """Stream a dump of the snapshot into a file and return its checksum."""
    command = ["pg_dump", "--format=custom", f"--snapshot={snapshot}", "--username=postgres"]
    command = inside(params["container"], params["user"], *command, params["database"])
    digest = hashlib.sha256()
    with (
        create(path) as target,
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            ["docker", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        try:
            while process.stdout and (chunk := process.stdout.read(CHUNK)):
                digest.update(chunk)
                target.write(chunk)
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            errors.seek(0)
            message = f"pg_dump failed: {errors.read().decode(errors='replace').strip()}"
            raise RefusedError(message)
        flush(target)
    return digest.hexdigest()


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return the tables whose restored copy differs from the database."""
    said = []
    for table in sorted(wanted.keys() | found.keys()):
        here, there = wanted.get(table), found.get(table)
        if here is None or there is None:
            said.append(f"table {table} is {'not in it' if there is None else 'only in it'}")
        elif here["rows"] != there["rows"]:
            said.append(f"table {table} has {there['rows']} rows instead of {here['rows']}")
        elif here["checksum"] != there["checksum"]:
            said.append(f"table {table} has other contents in its {here['rows']} rows")
    return said


def sequence_differences(
    before: dict[str, int], after: dict[str, int], found: dict[str, int]
) -> list[str]:
    """Return the sequences with other values; they may have moved, as no snapshot contains them."""
    said = []
    for name, first in sorted(before.items()):
        low, high = sorted((first, after.get(name, first)))
        if not low <= found.get(name, low - 1) <= high:
            said.append(f"sequence {name} stands at {found.get(name)}, not at {low} to {high}")
    return said


@contextlib.contextmanager
def interruptible(timeout: int) -> Iterator[None]:
    """Turn the time limit and stop signals into an exception, so that the clean-up runs."""

    def stop(number: int, _frame: object) -> None:
        if number == signal.SIGALRM:
            message = f"it did not end within {timeout} s (backup_timeout)"
            raise RefusedError(message)
        message = f"it was stopped by {signal.Signals(number).name}"
        raise RefusedError(message)

    for one in SIGNALS:
        signal.signal(one, stop)
    signal.alarm(timeout)
    try:
        yield
    finally:
        # Only SIGKILL can interrupt the clean-up that follows.
        signal.alarm(0)
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)


def clear(params: Params, scratch: Scratch) -> None:
    """Remove everything unfinished: containers, sessions, files."""
    scratch.remove()
    end_sessions(params["container"], params["user"])
    for path in halves(Path(params["directory"])):
        path.unlink()


def prove(params: Params, scratch: Scratch, source: Session) -> dict[str, Any]:
    """Dump, read again, restore and compare; keep the dump and return its record."""
    started, clock = time.gmtime(), time.monotonic()
    directory = Path(params["directory"])
    part = directory / f"{params['label']}.dump.part"
    scratch.prepare()
    start = source.ask(BEGIN + START)
    # Count first: the locks that this takes prevent changes and truncation of the tables.
    before = source.ask(RELATIONS)
    tables = source.contents(before["tables"])
    sha256 = dump(params, start["snapshot"], part)
    after = source.ask(RELATIONS)
    reread(part, sha256)

    scratch.start()
    scratch.restore(part, start["roles"])
    with Session(scratch.name, params["user"], "postgres") as copy:
        restored = copy.ask(SETTINGS + RELATIONS)
        wrong = differences(tables, copy.contents(restored["tables"]))
    wrong += sequence_differences(before["sequences"], after["sequences"], restored["sequences"])
    if wrong:
        message = f"the restored dump differs from the database: {'; '.join(wrong)}"
        raise RefusedError(message)

    path = directory / f"{params['label']}-{time.strftime('%Y%m%dT%H%M%SZ', started)}.dump"
    record = {
        "format": 1,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", started),
        "database": params["database"],
        "postgres": start["version"],
        "label": params["label"],
        "dump": path.name,
        "bytes": part.stat().st_size,
        "sha256": sha256,
        "tables": tables,
        "sequences": restored["sequences"],
        "restored": True,
        "seconds": round(time.monotonic() - clock, 1),
    }
    finish(part, path, record)
    return record


def back_up(params: Params) -> dict[str, Any]:
    """Make a backup and return the module's result."""
    directory, scratch = Path(params["directory"]), Scratch(params)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    with only_one(directory):
        try:
            with interruptible(params["timeout"]):
                clear(params, scratch)
                with Session(params["container"], params["user"], params["database"]) as source:
                    require_space(directory, source.ask(SETTINGS + SIZE))
                    record = prove(params, scratch, source)
        finally:
            clear(params, scratch)
        path = directory / record["dump"]
        pruned = prune(directory, params["keep"], path)
    tables, seconds = record["tables"], record["seconds"]
    rows = sum(table["rows"] for table in tables.values())
    return {
        "changed": True,
        "path": str(path),
        "bytes": record["bytes"],
        "sha256": record["sha256"],
        "tables": len(tables),
        "rows": rows,
        "seconds": seconds,
        "pruned": pruned,
        "msg": f"{path} ({human(record['bytes'])}) holds {len(tables)} tables of "
        f"{params['database']} with {rows} rows, restored and compared within {seconds} s",
    }


def foresee(params: Params) -> dict[str, Any]:
    """Return what a run would do (check mode)."""
    with Session(params["container"], params["user"], params["database"]) as source:
        size = source.ask(SIZE)
    require_space(Path(params["directory"]), size)
    message = f"would back up {params['database']} ({human(size)}) into {params['directory']}"
    return {"changed": True, "bytes": size, "msg": message}


def run(module: Any) -> dict[str, Any]:
    """Take a backup, or say what one would be."""
    params = module.params
    if not LABEL.fullmatch(params["label"]) or params["keep"] < 1 or params["timeout"] < 1:
        raise RefusedError(
            "label takes letters, digits and . _ + - only; keep and timeout begin at 1"
        )
    try:
        return foresee(params) if module.check_mode else back_up(params)
    except (RefusedError, OSError, ValueError) as error:
        message = f"the backup of {params['database']} failed: {error}"
        raise RefusedError(message) from error


TEXTS = ("container", "image", "user", "database", "label")
OPTIONS = {
    **{name: {"required": True} for name in TEXTS},
    "directory": {"type": "path", "required": True},
    "keep": {"type": "int", "default": 3},
    "timeout": {"type": "int", "default": 3600},
    "memory": {"type": "str", "default": "512m"},
    "scratch": {"type": "str", "default": "airlift-backup-scratch"},
}

if __name__ == "__main__":
    answer(run, OPTIONS)
