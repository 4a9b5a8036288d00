"""Commands of a deployment: they are printed, streamed, and end with this program."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from scripts.deploy.outcome import Interrupted

#: Seconds for a command to end by itself after a signal.
GRACE = 20


class Done(NamedTuple):
    """The exit code of a command, and its output."""

    code: int
    output: str

    @property
    def reason(self) -> str:
        """Return why it failed: the last error of a playbook, otherwise the last line.

        Earlier errors were ignored, or a rescue handled them and its own error sums them up.
        `[ERROR]` is Ansible's own: before a playbook begins, and from releases without our output.
        """
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        words = ("[ERROR]", "failed: [", "unreachable: [")
        errors = [line for line in lines if line.startswith(words)]
        found = errors[-1] if errors else (lines or ["no output"])[-1]
        found = re.sub(r"^(failed|unreachable): \[.*?\] ", "", found)
        for prefix in ("[ERROR]:", "Task failed:", "Action failed:", "Module failed:"):
            found = found.removeprefix(prefix).strip()
        return found[:300]


def catch_signals() -> None:
    """Turn signals into an exception, so that a summary is still written."""

    def end(number: int, _frame: object) -> None:
        raise Interrupted(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)


def say(text: str) -> None:
    """Print a line now, also into a pipe; when its reader has gone, a deployment still ends."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def folded(title: str, *, actions: bool) -> Iterator[None]:
    """Fold what is printed inside, and keep GitHub from reading it as workflow commands."""
    if not actions:
        say(f"\n=== {title}")
        yield
        return
    token = secrets.token_hex(16)
    say(f"::group::{title}")
    say(f"::stop-commands::{token}")
    try:
        yield
    finally:
        say(f"::{token}::")
        say("::endgroup::")


def run(
    argv: Sequence[str | Path], *, cwd: Path | None = None, quiet: bool = False, errors: bool = True
) -> Done:
    """Run a command and print its output; with ``errors``, include standard error.

    A signal that ends this program ends the command first. The site records what is in progress,
    and the same command continues it.
    """
    words = [str(word) for word in argv]
    place = f"cd {shlex.quote(str(cwd))} && " if cwd else ""
    say(f"$ {place}{shlex.join(words)}")
    lines: list[str] = []
    with subprocess.Popen(
        words,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if errors else None,
        # Without colours, so that lines can be copied from the log.
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
    ) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip("\n")
                lines.append(line)
                if not quiet:
                    say(line)
        except Interrupted:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(GRACE)
            except (subprocess.TimeoutExpired, Interrupted):
                process.kill()
            raise
    return Done(process.returncode, "\n".join(lines))
