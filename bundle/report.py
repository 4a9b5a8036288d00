"""What people see in a terminal: sizes, tables, progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


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


class Progress:
    """One line that moves, on a terminal only; a slow stick should not look like a hang."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._done = 0
        self._start = time.monotonic()
        self._shown = self._start
        self._on = sys.stderr.isatty()

    def __call__(self, count: int) -> None:
        """So many more bytes are done."""
        self._done += count
        moment = time.monotonic()
        if self._on and moment - self._shown > 0.2:
            self._shown = moment
            rate = self._done / (moment - self._start)
            sys.stderr.write(f"\r\033[K{self._what}: {size(self._done)}, {size(int(rate))}/s")
            sys.stderr.flush()

    def clear(self) -> None:
        """Make room for another line."""
        if self._on:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def finish(self) -> float:
        """Clear the line; return the seconds."""
        self.clear()
        return time.monotonic() - self._start
