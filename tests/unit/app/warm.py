"""Start `python -m app` as a fork of a process that has already imported the libraries.

The tests start the service a hundred times, and most of a start is the import of its libraries.
Here they are imported once, and each start is a fork, as with gunicorn's workers. Each process
imports the service's own modules again, with its own environment. The real commands are started
in test_app_serving.py, test_app_head.py, `make kills` and by the image.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import site
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
#: Modules whose import loads all libraries.
PROGRAMS = ("app.main", "app.jobs.worker", "app.db.migrate", "app.key_commands")
LATE = ("gunicorn.app.wsgiapp", "alembic.command", "sqlalchemy.dialects.postgresql.psycopg")
#: Modules that read the environment at import, so each process imports them itself.
BY_ENVIRONMENT = ("app", "prometheus_client")


class Started:
    """A started process, with the part of Popen's interface that the tests use."""

    def __init__(self, report: int) -> None:
        self._report = os.fdopen(report, "rb", buffering=0)
        self.pid = int(self._line())
        self.returncode: int | None = None

    def _line(self) -> bytes:
        return self._report.readline()

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is None and select.select([self._report], [], [], 0)[0]:
            self.returncode = int(self._line())
            self._report.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code."""
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("app", timeout or 0)
            self.poll()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal if it is still running."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    module: str,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdout: int,
    stderr: int,
) -> Started:
    """Start `python -m MODULE ARGUMENTS` in a session of its own."""
    told, report = os.pipe()
    call = {"module": module, "arguments": arguments, "env": dict(env), "cwd": str(cwd)}
    socket.send_fds(_parent(), [json.dumps(call).encode()], [report, stdout, stderr])
    os.close(report)
    return Started(told)


def run(
    module: str, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS` to its end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        streams = {"stdout": out.fileno(), "stderr": err.fileno()}
        code = start(module, arguments, env=env, cwd=cwd, **streams).wait(60)
        for stream in (out, err):
            stream.seek(0)
        return subprocess.CompletedProcess([module, *arguments], code, out.read(), err.read())


@functools.cache
def _parent() -> socket.socket:
    """Return the connection to the forking process, which ends with this process."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        subprocess.Popen(
            [sys.executable, __file__, str(there.fileno())],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            pass_fds=[there.fileno()],
            start_new_session=True,
        )
    return here


def _libraries() -> list[str]:
    """Return the names of all imported modules except the service's own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        before = set(sys.modules)
        for name in (*PROGRAMS, *LATE):
            importlib.import_module(name)
        found = [name for name in sys.modules if name not in before]
        with os.fdopen(writer, "w") as stream:
            stream.write("\n".join(found))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        found = stream.read().splitlines()
    assert os.waitpid(child, 0)[1] == 0
    return [name for name in found if name.partition(".")[0] not in BY_ENVIRONMENT]


def _next_call(calls: socket.socket) -> dict[str, Any]:
    """Fork for each call and report each exit code; return the call in the child."""
    running: dict[int, tuple[int, int]] = {}
    waiting = select.poll()
    waiting.register(calls, select.POLLIN)
    while True:
        for ready, _ in waiting.poll():
            if ready in running:
                pid, report = running.pop(ready)
                _, status = os.waitpid(pid, 0)
                waiting.unregister(ready)
                with contextlib.suppress(BrokenPipeError):  # nobody waits for it
                    os.write(report, b"%d\n" % os.waitstatus_to_exitcode(status))
                os.close(ready)
                os.close(report)
                continue
            data, passed, _, _ = socket.recv_fds(calls, 1 << 18, 3)
            if not data:
                sys.exit()
            report, *streams = passed
            pid = os.fork()
            if pid == 0:
                for number, stream in enumerate(streams, 1):
                    os.dup2(stream, number)
                others = [fd for pair in running.items() for fd in (pair[0], pair[1][1])]
                for fd in (calls.detach(), *passed, *others):
                    os.close(fd)
                call: dict[str, Any] = json.loads(data)
                return call
            os.write(report, b"%d\n" % pid)
            ended = os.pidfd_open(pid)
            running[ended] = (pid, report)
            waiting.register(ended, select.POLLIN)
            for stream in streams:
                os.close(stream)


def _main() -> None:
    path = sys.path[1:]
    for name in _libraries():
        importlib.import_module(name)
    gc.freeze()
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    call = _next_call(socket.socket(fileno=int(sys.argv[1])))
    os.setsid()
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["env"])
    mine = call["env"].get("PYTHONPATH", "").split(":")
    sys.path[:] = [call["cwd"], *mine, *(entry for entry in path if entry != str(ROOT))]
    sys.argv[1:] = call["arguments"]
    site.execsitecustomize()
    runpy.run_module(call["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
