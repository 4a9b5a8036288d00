"""A handle for the lab: raise it, remove it, run a command on one of its machines.

The lab itself is data and playbooks in ``molecule/lab``. The demo and the end-to-end tests use this
handle.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bundle.builder.images import engine

ROOT = Path(__file__).resolve().parent.parent
#: Called with each line that a long command prints.
Listener = Callable[[str], None]


def telling(output: str) -> str:
    """Return the part of a failed command's output with the reason: a playbook's first error.

    `[ERROR]` and `fatal:` are Ansible's own words: with `-v`, and before a playbook begins.
    """
    lines = [line for line in output.splitlines() if line.strip()]
    words = ("[ERROR]", "fatal:", "failed:", "unreachable:")
    errors = [i for i, line in enumerate(lines) if line.startswith(words)]
    if not errors:
        return "\n".join(lines[-25:])
    end = next((i for i in range(errors[0], len(lines)) if lines[i].startswith("PLAY")), None)
    return "\n".join(lines[errors[0] : end][:40])


class CommandError(Exception):
    """A command of the journey failed; the text names it, with the end of its output."""

    def __init__(self, what: str, code: int, output: str) -> None:
        super().__init__(f"{what} ended with exit code {code}\n{telling(output)}")
        self.what = what
        self.code = code
        self.output = output


@dataclass(frozen=True)
class Done:
    """The result of a command: exit code, standard output and standard error."""

    code: int
    output: str
    error: str = ""


def stream(
    argv: Sequence[str],
    *,
    what: str,
    listen: Listener,
    stdin: IO[bytes] | None = None,
    env: dict[str, str] | None = None,
    check: bool = True,
    cwd: Path = ROOT,
) -> Done:
    """Run a command, pass each line of its output to ``listen``, and return all of them."""
    lines: list[str] = []
    with subprocess.Popen(
        argv,
        stdin=stdin if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=env,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            lines.append(line)
            listen(line)
    done = Done(process.returncode, "\n".join(lines))
    if check and done.code != 0:
        raise CommandError(what, done.code, done.output)
    return done


@dataclass
class Lab:
    """One lab: the full one, unless another prefix, shape or other machines are given."""

    prefix: str = "lab"
    #: A file of molecule/lab/shapes; "" leaves it to the variables.
    shape: str = ""
    variables: list[str] = field(default_factory=list)
    listen: Listener = lambda _line: None

    @property
    def cache(self) -> Path:
        """Return the folder on this machine with the keys of this lab."""
        return ROOT / ".cache" / "lab" / self.prefix

    def up(self) -> Done:
        """Raise the lab, or those of its machines that are missing."""
        return self._play("create")

    def down(self) -> Done:
        """Remove the lab."""
        return self._play("destroy")

    def is_up(self, host: str) -> bool:
        """Return whether a machine runs."""
        return self.docker(
            "inspect", "--format", "{{.State.Running}}", self.name(host), check=False
        )[1].startswith("true")

    def name(self, host: str) -> str:
        """Return the container that stands in for ``host``."""
        return f"{self.prefix}-{host}"

    def docker(self, *arguments: str, check: bool = True) -> tuple[int, str]:
        """Call the engine's client; return exit code and standard output."""
        done = subprocess.run(
            [*engine.docker(), *arguments], capture_output=True, text=True, check=False
        )
        if check and done.returncode != 0:
            raise CommandError(f"docker {arguments[0]}", done.returncode, done.stderr)
        return done.returncode, done.stdout

    def console(
        self,
        host: str,
        script: str,
        *arguments: str,
        user: str = "root",
        stdin: str = "",
        check: bool = True,
        timeout: float = 600,
    ) -> Done:
        """Run a shell script on a machine's console, which works whatever its firewall says."""
        return self._finish(
            [
                *(*engine.docker(), "exec", "--interactive", f"--user={user}", self.name(host)),
                *("sh", "-euc", script, "sh", *arguments),
            ],
            what=f"a command on {host}",
            stdin=stdin,
            check=check,
            timeout=timeout,
        )

    def python(self, host: str, code: str, *arguments: str, check: bool = True) -> Done:
        """Run a Python program, given as text, on a machine's console."""
        return self._finish(
            [
                *engine.docker(),
                "exec",
                "--interactive",
                self.name(host),
                "python3",
                "-",
                *arguments,
            ],
            what=f"a program on {host}",
            stdin=code,
            check=check,
            timeout=600,
        )

    def send(self, host: str, script: str, *arguments: str, data: bytes) -> None:
        """Run a shell script on a machine's console with bytes on its standard input."""
        argv = [*engine.docker(), "exec", "--interactive", self.name(host), "sh", "-euc", script]
        done = subprocess.run(
            [*argv, "sh", *arguments], input=data, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise CommandError(f"a command on {host}", done.returncode, done.stderr.decode())

    def read(self, host: str, path: str) -> bytes:
        """Return a file of a machine."""
        argv = [*engine.docker(), "exec", self.name(host), "cat", path]
        return subprocess.run(argv, capture_output=True, check=True).stdout

    @contextlib.contextmanager
    def running(self, host: str, code: str, *arguments: str) -> Iterator[None]:
        """Keep a Python program running on a machine, from the line that it prints when ready.

        Closing its standard input ends it.
        """
        argv = [*engine.docker(), "exec", "--interactive", self.name(host), "python3", "-c", code]
        with subprocess.Popen(
            [*argv, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            process.stdout.readline()
            try:
                yield
            finally:
                process.communicate()

    def ssh(
        self, script: str, *, stdin: str = "", check: bool = True, timeout: float = 3600
    ) -> Done:
        """Run a shell script as the operator on the jump host, logged in by SSH."""
        return self._finish(
            self.ssh_argv(script),
            what="a command on the jump host",
            stdin=stdin,
            check=check,
            timeout=timeout,
        )

    def ssh_argv(self, script: str) -> list[str]:
        """Return the command that runs ``script`` as the operator on the jump host."""
        remote = f"bash -euo pipefail -c {shlex.quote(script)}"
        return ["ssh", "-F", str(self.cache / "ssh_config"), "-o", "LogLevel=ERROR", "jump", remote]

    def ssh_stream(self, script: str, *, what: str, check: bool = True) -> Done:
        """Run a shell script like ``ssh``, and pass on its output while it runs."""
        return stream(self.ssh_argv(script), what=what, listen=self.listen, check=check)

    def received(self, host: str) -> int:
        """Return how many bytes a machine has received from the network since it was raised."""
        return int(self.console(host, "cat /sys/class/net/eth0/statistics/rx_bytes").output)

    @staticmethod
    def _finish(argv: Sequence[str], *, what: str, stdin: str, check: bool, timeout: float) -> Done:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode != 0:
            raise CommandError(what, done.returncode, done.stdout + done.stderr)
        return Done(done.returncode, done.stdout, done.stderr)

    def _play(self, playbook: str) -> Done:
        argv = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "molecule/lab/inventory.yml"]
        argv += [f"molecule/lab/{playbook}.yml", "-e", f"lab_prefix={self.prefix}"]
        argv += [*(["-e", f"lab_shape={self.shape}"] if self.shape else []), *self.variables]
        return stream(argv, what=f"molecule/lab/{playbook}.yml", listen=self.listen)
