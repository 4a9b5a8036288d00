"""Postgres in containers, reached through its own socket; for C(postgres_backup)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils import engine_client
from ansible.module_utils.host_tools import RefusedError, ids

# The name of our sessions in the source server, to find those of a killed run.
SESSION_NAME = "airlift-backup"
SCRATCH_DATA = "/var/lib/postgresql/data"
# The settings with which the role postgres creates the site's cluster: texts must sort the same
# way.
INITDB = (
    *("initdb", f"--pgdata={SCRATCH_DATA}", "--username=postgres", "--auth-local=peer"),
    *("--auth-host=reject", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"),
    *("--builtin-locale=C.UTF-8", "--no-sync"),
)
# The data are only needed during the run, so they need not survive a crash.
SERVER = (
    *("postgres", "-D", SCRATCH_DATA, "-c", "listen_addresses="),
    *("-c", "unix_socket_directories=/run/postgresql", "-c", "fsync=off"),
    *("-c", "full_page_writes=off", "-c", "autovacuum=off", "-c", "wal_level=minimal"),
    *("-c", "max_wal_senders=0", "-c", "max_wal_size=256MB"),
)
# (r.*) is the whole row, even if a column is named r.
CONTENT = """SELECT json_build_object('rows', count(*), 'checksum',
  coalesce(sum(hashtextextended((r.*)::text, 0)::numeric), 0)::text) FROM ONLY {table} AS r"""
END_SESSIONS = f"""SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = '{SESSION_NAME}' AND pid <> pg_backend_pid();"""  # noqa: S608


def docker(*arguments: str, what: str = "", **how: Any) -> str:
    """Run the engine's client; with `what`, a failure of it is an error that names it."""
    done = engine_client.docker(*arguments, timeout=None, **(how or {"input": ""}))
    output, errors = str(done.stdout).strip(), str(done.stderr).strip()
    if what and done.returncode != 0:
        message = f"{what}: {errors or output or f'exit code {done.returncode}'}"
        raise RefusedError(message)
    return output or errors


def inside(container: str, user: str, *command: str) -> list[str]:
    """Return the arguments that run a program in a container, under our session name."""
    fixed = ["exec", "--interactive", "--user", user, "--env", f"PGAPPNAME={SESSION_NAME}"]
    return [*fixed, container, *command]


def psql(database: str) -> list[str]:
    """Return psql as superuser on the socket: one answer per line, stop at the first error."""
    quiet = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
    return [*quiet, "--set=ON_ERROR_STOP=1", "--username=postgres", f"--dbname={database}"]


def end_sessions(container: str, user: str) -> None:
    """End what an earlier client left: killed, it leaves its program running in the container."""
    docker(*inside(container, user, *psql("postgres")), input=END_SESSIONS)


class Session:
    """An open psql process, which keeps its transaction and its snapshot."""

    def __init__(self, container: str, user: str, database: str) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            ["docker", *inside(container, user, *psql(database))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            # It may be in the middle of a long answer that is no longer needed.
            self.process.kill()
        self.process.communicate()
        self.errors.close()

    def ask(self, sql: str) -> Any:
        """Return the last statement's answer, one line of JSON."""
        assert self.process.stdin is not None  # noqa: S101
        assert self.process.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{sql};\n".encode())
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            # The end of the stream, or an error message of the engine instead of an answer.
            self.process.wait()
            self.errors.seek(0)
            said = (line + self.errors.read()).decode(errors="replace").strip()
            raise RefusedError(said or "the session with Postgres ended") from None

    def contents(self, tables: list[str]) -> dict[str, dict[str, Any]]:
        """Return row counts and checksums of tables; the order of rows does not matter."""
        return {table: self.ask(CONTENT.format(table=table)) for table in tables}


class Scratch:
    """A scratch server for testing a dump: no network, no capabilities, no password."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.name, self.image, self.user = params["scratch"], params["image"], params["user"]
        self.memory = params["memory"]
        self.data = Path(params["directory"]) / "scratch"

    def remove(self) -> None:
        """Remove the container and its data, also those of a killed run."""
        docker("rm", "--force", "--volumes", self.name)
        if self.data.exists():
            shutil.rmtree(self.data)

    def run(self, *command: str, detach: bool = False) -> str:
        """Run a program of the image in a container with a fixed name."""
        uid = self.user.partition(":")[0]
        # Remove again: the client of a killed run may have created one in the meantime.
        docker("rm", "--force", "--volumes", self.name)
        return docker(
            *("run", "--name", self.name, *(["--detach"] if detach else []), "--pull", "never"),
            *("--network", "none", "--read-only", "--user", self.user, "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges:true", "--pids-limit", "256"),
            *("--memory", self.memory, "--memory-swap", self.memory, "--shm-size", "128m"),
            # A low CPU weight: the site's own server has priority.
            *("--cpu-shares", "512", "--log-driver", "json-file", "--log-opt", "max-size=1m"),
            *("--tmpfs", f"/run/postgresql:rw,noexec,nosuid,nodev,size=1m,mode=0750,uid={uid}"),
            *("--tmpfs", "/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777"),  # noqa: S108
            *("--mount", f"type=bind,source={self.data},target={SCRATCH_DATA}"),
            *("--entrypoint", command[0], self.image, *command[1:]),
            what=f"the temporary server ({command[0]})",
        )

    def prepare(self) -> None:
        """Start to create an empty cluster, which takes seconds; the dump runs meanwhile."""
        self.data.mkdir(mode=0o700)
        os.chown(self.data, *ids(self.user))
        self.run(*INITDB, detach=True)

    def start(self) -> None:
        """Start the server on the prepared cluster, and wait until it answers."""
        code = docker("wait", self.name)
        if code != "0":
            last_words = docker("logs", "--tail", "5", self.name)
            message = f"the throw-away server (initdb) ended with {code}: {last_words}"
            raise RefusedError(message)
        self.run(*SERVER, detach=True)
        ready = ["pg_isready", "--host=/run/postgresql", "--username=postgres"]
        while "accepting" not in docker(*inside(self.name, self.user, *ready)):
            if docker("inspect", "--format", "{{.State.Running}}", self.name) != "true":
                last_words = docker("logs", "--tail", "5", self.name)
                message = f"the throw-away server ended: {last_words}"
                raise RefusedError(message)
            time.sleep(0.1)

    def restore(self, dump: Path, roles: list[str]) -> None:
        """Restore a dump from disk, stopping at the first error."""
        # Policies and the like name roles; without them the restore would stop there.
        create = "".join(f"CREATE ROLE {role};\n" for role in roles)
        docker(
            *inside(self.name, self.user, *psql("postgres")),
            input=create,
            what="the throw-away server's roles",
        )
        command = ["pg_restore", "--exit-on-error", "--no-owner", "--no-privileges"]
        with dump.open("rb") as stream:
            docker(
                *inside(self.name, self.user, *command, "--username=postgres", "--dbname=postgres"),
                stdin=stream,
                what="the dump cannot be restored",
            )
