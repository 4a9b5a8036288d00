"""What the demo shows: a line a step, which moves while the step runs when somebody looks."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
from typing import TextIO

_TASK = re.compile(r"TASK \[(.*?)\] *\**$")
_LOGGED = re.compile(r"^ *\d+\.\d s  (.*)$")
_NOISE = re.compile(
    r"^(\s|PLAY|TASK|RUNNING|FAILED - RETRYING|ok:|changed:|skipping:|included:|\[|\}|#|$)"
)
_STILL_EVERY = 30.0


def sub_step(line: str) -> str | None:
    """Return what a line of output says about where a command is, or None."""
    for pattern in (_TASK, _LOGGED):
        if found := pattern.search(line):
            return found.group(1)
    return None if _NOISE.match(line) else line


class Screen:
    """Steps on the terminal, everything in the log."""

    def __init__(self, log: TextIO) -> None:
        self._log = log
        self._live = sys.stdout.isatty()
        self._lock = threading.Lock()
        self._step = ""
        self._now = ""
        self._begun = 0.0
        self._said = 0.0
        self._running = False

    def title(self, text: str) -> None:
        """Print the heading."""
        print(f"{self._paint(text, '1')}\n", flush=True)

    def start(self, step: str) -> None:
        """Begin a step."""
        self._step, self._now, self._running = step, "", True
        self._begun = self._said = time.monotonic()
        self._record(f"=== {step}")
        if self._live:
            threading.Thread(target=self._tick, daemon=True).start()

    def listen(self, line: str) -> None:
        """Take a line that a command printed."""
        self._record(line)
        if (text := sub_step(line)) is not None:
            self._now = text
        if not self._live and time.monotonic() - self._said > _STILL_EVERY:
            self._said = time.monotonic()
            print(f"      {self._said - self._begun:6.0f} s  {self._now}", flush=True)

    def done(self, summary: str) -> None:
        """End a step that went well."""
        self._end(self._paint("ok", "32"), summary)

    def fail(self, why: str) -> None:
        """End a step that failed, and say why."""
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
        return f"\033[{code}m{text}\033[0m" if self._live else text
