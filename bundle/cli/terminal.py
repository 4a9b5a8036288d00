"""What people see in a terminal or a log: colours, progress, and the current step."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TextIO

from bundle.core.text import duration, size

GREEN, RED = "32", "31"
_CLEAR = "\r\033[K"
#: A log gets a line after so many seconds, if this share of the work was done meanwhile.
LOG_SECONDS, LOG_SHARE = 10.0, 0.1
#: After so many seconds it gets one in any case, so that slow work does not look stuck.
LOG_PATIENCE = 60.0


def columns(stream: TextIO) -> int | None:
    """Return the width of a terminal; None for anything else."""
    if not stream.isatty():
        return None
    import shutil  # noqa: PLC0415 - for terminals only

    return shutil.get_terminal_size().columns


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Colour a status word on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not stream.isatty() else f"\033[1;{colour}m{text}\033[0m"


def say(text: str, stream: TextIO | None = None) -> None:
    """Print an answer; a reader that closed its pipe (`| head`) is not an error."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        from bundle.core.files import discard  # noqa: PLC0415 - for broken pipes only

        discard(stream)
        if not isinstance(error, BrokenPipeError):
            raise


def open_streams() -> None:
    """Open /dev/null in place of standard streams that are closed (`>&-`).

    Otherwise the next file that is opened, such as a bundle, would become standard output.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The system gives the lowest free number, which is the one that is missing.
            fd = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(fd, "w" if number else "r", encoding="utf-8"))


def clear(stream: TextIO) -> None:
    """Clear the terminal's line, which may show a progress."""
    if stream.isatty():
        stream.write(_CLEAR)
        stream.flush()


def file_size(path: Path) -> int:
    """Return about how much there is to read; whether it can be read is checked later."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class Progress:
    """Progress on stderr: a line that moves on a terminal, a few lines in a log."""

    def __init__(self, what: str, total: int = 0, stream: TextIO | None = None) -> None:
        self.total = total
        self._what = what
        self._stream = stream or sys.stderr
        self._done = 0
        self._start = self._shown = time.monotonic()
        self._shown_done = 0
        self._moving = self._stream.isatty()

    def __call__(self, count: int) -> None:
        """Add so many bytes to what is done."""
        self._done += count
        moment = time.monotonic()
        waited = moment - self._shown
        if self._moving:
            if waited > 0.2:
                self._show(moment, _CLEAR, "")
        elif waited > LOG_PATIENCE or (
            waited > LOG_SECONDS and self._done - self._shown_done >= self.total * LOG_SHARE
        ):
            self._show(moment, "", "\n")

    def _show(self, moment: float, before: str, after: str) -> None:
        self._shown, self._shown_done = moment, self._done
        text = self.line(moment - self._start)
        if self._moving:
            text = text[: (columns(self._stream) or 80) - 1]
        self._stream.write(before + text + after)
        self._stream.flush()

    def line(self, seconds: float) -> str:
        """Return the line to show after so many seconds."""
        rate = self._done / max(seconds, 0.001)
        speed = f"{size(int(rate))}/s"
        if not self.total:
            return f"{self._what}: {size(self._done)}, {speed}"
        done = min(self._done, self.total)
        left = duration((self.total - done) / max(rate, 1))
        of = f"{size(done)} of {size(self.total)}"
        return f"{self._what}: {100 * done // self.total:3d} %, {of}, {speed}, {left} left"

    def clear(self) -> None:
        """Clear the line, for another one."""
        clear(self._stream)

    def finish(self) -> float:
        """Clear the line; return the seconds."""
        self.clear()
        return time.monotonic() - self._start


def searching() -> Progress:
    """Return the progress of a search for the bad part of a bundle in parts."""
    return Progress("searching for the bad part")


class Narrator:
    """Writes each step with its time to stderr, above the progress."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._start = time.monotonic()

    def __call__(self, text: str) -> None:
        """Write a line."""
        if self._progress is not None:
            self._progress.clear()
        print(f"{time.monotonic() - self._start:6.1f} s  {text}", file=sys.stderr, flush=True)
