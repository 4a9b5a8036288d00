"""What people see in a terminal or a log: sizes, tables, colours, progress."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TextIO

GREEN, RED = "32", "31"
#: A log gets a line when so many seconds have passed since the last, and so much is done.
LOG_SECONDS, LOG_SHARE = 10.0, 0.1
#: ... and one anyway when so many seconds have passed: slow is not stuck.
LOG_PATIENCE = 60.0


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def duration(seconds: float) -> str:
    """A time left, as far as anybody cares."""
    whole = int(seconds + 0.5)
    if whole < 90:
        return f"{whole} s"
    return f"{(whole + 30) // 60} min" if whole < 5400 else f"{whole / 3600:.1f} h"


def table(rows: Sequence[Sequence[str]], heads: Sequence[str] | None = None) -> str:
    """Columns as wide as their longest cell."""
    lines = [*([heads] if heads else []), *rows]
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    out = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    if heads:
        out.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in out)


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and what they are; on a terminal, long ones are folded under themselves."""
    width = max(len(name) for name, _ in rows) + 2
    folded = (fold(value, sys.stdout, width).split("\n") for _, value in rows)
    lines = [
        (name if first else "").ljust(width) + line
        for (name, _), parts in zip(rows, folded, strict=True)
        for first, line in zip((True, *[False] * len(parts)), parts, strict=False)
    ]
    return "\n".join(line.rstrip() for line in lines)


def fold(text: str, stream: TextIO, used: int = 0) -> str:
    """Break a text between words for a terminal, of which so many columns are taken."""
    if not stream.isatty():
        return text
    import textwrap  # noqa: PLC0415 - for terminals only

    room = max(_columns() - used, 30)
    return "\n".join(textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False))


def _columns() -> int:
    import shutil  # noqa: PLC0415 - for terminals only

    return shutil.get_terminal_size().columns


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Colour a word on a terminal, unless NO_COLOR says no (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not stream.isatty() else f"\033[1;{colour}m{text}\033[0m"


def say(text: str, stream: TextIO | None = None) -> None:
    """Print an answer; a reader that closed its pipe (`| head`) has what it wanted."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        discard(stream)
        if not isinstance(error, BrokenPipeError):
            raise


def discard(stream: TextIO) -> None:
    """Let a stream lead nowhere: Python flushes once more at its end, which must not fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def open_streams() -> None:
    """Give a process that was started without them (`>&-`) streams that go nowhere.

    Else the next file that is opened, such as a bundle, would be its standard output.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest number that is free is the one that is missing.
            fd = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(fd, "w" if number else "r", encoding="utf-8"))


class Progress:
    """How far it is: a line that moves on a terminal, a few quiet lines in a log."""

    def __init__(self, what: str, total: int = 0, stream: TextIO | None = None) -> None:
        self.total = total
        self._what = what
        self._stream = stream or sys.stderr
        self._done = 0
        self._start = self._shown = time.monotonic()
        self._shown_done = 0
        self._moving = self._stream.isatty()

    def __call__(self, count: int) -> None:
        """So many more bytes are done."""
        self._done += count
        moment = time.monotonic()
        waited = moment - self._shown
        if self._moving:
            if waited > 0.2:
                self._show(moment, "\r\033[K", "")
        elif waited > LOG_PATIENCE or (
            waited > LOG_SECONDS and self._done - self._shown_done >= self.total * LOG_SHARE
        ):
            self._show(moment, "", "\n")

    def _show(self, moment: float, before: str, after: str) -> None:
        self._shown, self._shown_done = moment, self._done
        text = self.line(moment - self._start)
        if self._moving:
            text = text[: _columns() - 1]
        self._stream.write(before + text + after)
        self._stream.flush()

    def line(self, seconds: float) -> str:
        """The words after so many seconds."""
        rate = self._done / max(seconds, 0.001)
        speed = f"{size(int(rate))}/s"
        if not self.total:
            return f"{self._what}: {size(self._done)}, {speed}"
        done = min(self._done, self.total)
        left = duration((self.total - done) / max(rate, 1))
        of = f"{size(done)} of {size(self.total)}"
        return f"{self._what}: {100 * done // self.total:3d} %, {of}, {speed}, {left} left"

    def clear(self) -> None:
        """Make room for another line."""
        if self._moving:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def finish(self) -> float:
        """Clear the line; return the seconds."""
        self.clear()
        return time.monotonic() - self._start


class Narrator:
    """Says on stderr what is being done and since when, and makes room above the progress."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._start = time.monotonic()

    def __call__(self, text: str) -> None:
        """A line."""
        if self._progress is not None:
            self._progress.clear()
        print(f"{time.monotonic() - self._start:6.1f} s  {text}", file=sys.stderr, flush=True)
