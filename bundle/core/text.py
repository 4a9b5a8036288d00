"""Numbers and tables for people; this module does not know where they are shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"(\d+(\.\d+)?( (B|kB|MB|GB|s))?)?")


def size(count: int) -> str:
    """Return bytes for people, in decimal units."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def duration(seconds: float) -> str:
    """Return a time for people, rounded as far as it matters to them."""
    whole = int(seconds + 0.5)
    if whole < 90:
        return f"{whole} s"
    return f"{(whole + 30) // 60} min" if whole < 5400 else f"{whole / 3600:.1f} h"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, which takes an s."""
    return f"{count} {noun}" + ("s" if count != 1 else "")


def table(
    rows: Sequence[Sequence[str]],
    heads: Sequence[str] | None = None,
    columns: int | None = None,
) -> str:
    """Return columns as wide as their longest cell, two spaces apart.

    With heads, columns of numbers are aligned to the right. With `columns`, the width of a
    terminal, the last column is folded.
    """
    lines = [*([[head.upper() for head in heads]] if heads else []), *rows]
    if not lines:
        return ""
    numbers = [bool(heads and all(map(_NUMBER.fullmatch, c))) for c in zip(*rows, strict=True)]
    *widths, _ = (max(map(len, cells)) for cells in zip(*lines, strict=True))
    last = max(len(line[-1]) for line in lines)
    out = []
    for line in lines:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(
                line, widths, numbers or [False] * len(line), strict=False
            )
        ]
        start = "".join(f"{cell}  " for cell in cells)
        end = line[-1].rjust(last) if numbers and numbers[-1] else line[-1]
        first, *rest = fold(end, columns, len(start)).split("\n") if columns else [end]
        out += [start + first, *(" " * len(start) + more for more in rest)]
    return "\n".join(line.rstrip() for line in out)


def facts(rows: Sequence[tuple[str, str]], columns: int | None = None) -> str:
    """Return names and values; with `columns`, long values are folded under themselves."""
    width = max(len(name) for name, _ in rows) + 2
    folded = (fold(value, columns, width).split("\n") for _, value in rows)
    lines = [
        (name if first else "").ljust(width) + line
        for (name, _), parts in zip(rows, folded, strict=True)
        for first, line in zip((True, *[False] * len(parts)), parts, strict=False)
    ]
    return "\n".join(line.rstrip() for line in lines)


def fold(text: str, columns: int | None, used: int = 0) -> str:
    """Break a text between words, to fit the columns that are not used yet."""
    if columns is None:
        return text
    import textwrap  # noqa: PLC0415 - for terminals only

    room = max(columns - used, 30)
    return "\n".join(textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False))
