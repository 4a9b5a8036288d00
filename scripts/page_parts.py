"""Parts of a page: what a generator makes between two markers, blocks of commands, and tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path


class PartError(Exception):
    """A page does not have a part that it needs."""


def between(document: str, begin: str, end: str, text: str) -> str:
    """Return `document` with the part between two markers replaced.

    Raises:
        PartError: the page does not have the first marker exactly once, and the second after it.
    """
    head, first, rest = document.partition(begin)
    _, last, tail = rest.partition(end)
    if not (first and last) or begin in rest:
        message = f"the page does not have these markers once: {begin} … {end}"
        raise PartError(message)
    return f"{head}{begin}\n{text}\n{end}{tail}"


def rewrite(page: Path, render: Callable[[str], str]) -> int:
    """Rewrite a page, or only compare it with `--check`; return the exit code."""
    before = page.read_text()
    try:
        after = render(before)
    except PartError as error:
        raise SystemExit(f"{page}: {error}") from None
    if "--check" in sys.argv[1:]:
        if before != after:
            print(f"{page}: its generated parts are out of date; run: python {sys.argv[0]}")
        return int(before != after)
    page.write_text(after)
    return 0


def blocks(text: str, kind: str = "sh") -> dict[str, str]:
    """Return the blocks of a kind that have a mark, by their marks, in the order of the page."""
    found = re.findall(rf"<!-- ([^>]+?) -->\n```{kind}\n(.*?)```", text, re.DOTALL)
    return dict(found)


def rows(table: str) -> list[list[str]]:
    """Return the cells of a table's rows, without its head."""
    found = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[2:]]


def table(text: str, mark: str) -> list[list[str]]:
    """Return the cells of the table under a mark, without its head."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\n((?:\|.*\n)+)", text)
    if found is None:
        message = f"the page has no table under <!-- {mark} -->"
        raise PartError(message)
    return rows(found[1])
