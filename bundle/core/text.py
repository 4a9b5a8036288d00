"""Numbers and tables as people read them; where they are shown is not known here."""

from __future__ import annotations

from collections.abc import Sequence


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


def plural(count: int, noun: str) -> str:
    """So many of a thing whose name takes an s."""
    return f"{count} {noun}" + ("s" if count != 1 else "")


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


def facts(rows: Sequence[tuple[str, str]], columns: int | None = None) -> str:
    """Names and what they are; long ones are folded under themselves, if there are columns."""
    width = max(len(name) for name, _ in rows) + 2
    folded = (fold(value, columns, width).split("\n") for _, value in rows)
    lines = [
        (name if first else "").ljust(width) + line
        for (name, _), parts in zip(rows, folded, strict=True)
        for first, line in zip((True, *[False] * len(parts)), parts, strict=False)
    ]
    return "\n".join(line.rstrip() for line in lines)


def fold(text: str, columns: int | None, used: int = 0) -> str:
    """Break a text between words, for so many columns of which some are used."""
    if columns is None:
        return text
    import textwrap  # noqa: PLC0415 - for terminals only

    room = max(columns - used, 30)
    return "\n".join(textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False))
