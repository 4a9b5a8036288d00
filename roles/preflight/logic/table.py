"""Format the report as a table that fits a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

HEADS = ("host", "check", "found", "needed")
FIELDS = ("host", "check", "fact", "need")
WIDEST = (14, 17, 42, 36)


def render(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as aligned columns, each with its fix below."""
    widths = [
        min(limit, max(len(head), *(len(str(one[field])) for one in rows)))
        for head, field, limit in zip(HEADS, FIELDS, WIDEST, strict=True)
    ]
    lines = [_line(HEADS, widths), _line(["-" * width for width in widths], widths)]
    for one in rows:
        cells = [
            textwrap.wrap(str(one[field]), width) or [""]
            for field, width in zip(FIELDS, widths, strict=True)
        ]
        height = max(len(cell) for cell in cells)
        lines += [
            _line([cell[index] if index < len(cell) else "" for cell in cells], widths)
            for index in range(height)
        ]
        indent = " " * (widths[0] + 2)
        lines += textwrap.wrap(
            f"fix: {one['fix']}",
            sum(widths) + 6,
            initial_indent=indent,
            subsequent_indent=indent + "     ",
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return one line of the table."""
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
