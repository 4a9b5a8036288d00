"""Print the demo's steps: one line per step, updated on a terminal while the step runs."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from typing import TextIO

_STEP = re.compile(r"^(\S.*?) {2,}\S.*? +\d+\.\d s(?:  failed)?$")
_LOGGED = re.compile(r"^ *\d+\.\d s  (.*)$")
_NOISE = re.compile(r"^(\s|changed:|\[|\}|#|$)")
_STILL_EVERY = 30.0


def sub_step(line: str) -> str | None:
    """Return the current step of a command that a line of its output names, or None."""
    for pattern in (_STEP, _LOGGED):
        if found := pattern.search(line):
            return found.group(1)
    return None if _NOISE.match(line) else line


class Screen:
    """Shows steps on the terminal, and writes everything to the log."""

    def __init__(self, log: TextIO) -> None:
        self._log = log
        self._live = sys.stdout.isatty()
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._coloured = self._live and not plain
        self._lock = threading.Lock()
        self._step = ""
        self._now = ""
        self._begun = 0.0
        self._shown = 0.0
        self._running = False

    def title(self, text: str) -> None:
        """Print the heading."""
        print(f"{self._paint(text, '1')}\n", flush=True)

    def start(self, step: str) -> None:
        """Begin a step."""
        self._step, self._now, self._running = step, "", True
        self._begun = self._shown = time.monotonic()
        self._record(f"=== {step}")
        if self._live:
            threading.Thread(target=self._tick, daemon=True).start()

    def listen(self, line: str) -> None:
        """Read a line that a command printed."""
        self._record(line)
        if (text := sub_step(line)) is not None:
            self._now = text
        if not self._live and time.monotonic() - self._shown > _STILL_EVERY:
            self._shown = time.monotonic()
            print(f"      {self._shown - self._begun:6.0f} s  {self._now}", flush=True)

    def done(self, summary: str) -> None:
        """End a step that succeeded."""
        self._end(self._paint("ok", "32"), summary)

    def fail(self, why: str) -> None:
        """End a step that failed, and print the reason."""
        self._end(self._paint("FAILED", "31;1"), self._now)
        self._record(why)
        print(f"\n{why}", flush=True)

    def _end(self, word: str, summary: str) -> None:
        with self._lock:
            self._running = False
            start = "\r\033[K" if self._live else ""
            seconds = time.monotonic() - self._begun
            # The pictures of the documents are drawn from the log.
            self._record(f"=== after {seconds:.1f} s: {summary}")
            print(
                f"{start}{self._step:<42}{seconds:8.1f} s  {word}  {summary}".rstrip(), flush=True
            )

    def _tick(self) -> None:
        step = self._step
        while True:
            with self._lock:
                if not self._running or self._step != step:
                    return
                seconds = time.monotonic() - self._begun
                width = shutil.get_terminal_size().columns - 1
                line = f"{step:<42}{seconds:8.1f} s  {self._now}"[:width]
                sys.stdout.write(f"\r\033[K{line}")
                sys.stdout.flush()
            time.sleep(0.2)

    def _record(self, line: str) -> None:
        self._log.write(f"{time.strftime('%H:%M:%S')} {line}\n")
        self._log.flush()

    def _paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._coloured else text
