"""Markdown as readers see it: sentences, cells and headings, without code.

``python -m scripts.prose`` puts each sentence of the pages on its own line; ``make fmt`` runs it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The folders of pages. CHANGELOG.md is a list and not a page.
PAGES = sorted(
    {
        path
        for pattern in (
            "README.md",
            "CONTRIBUTING.md",
            "*/README.md",
            "docs/**/*.md",
            "roles/*/*.md",
        )
        for path in ROOT.glob(pattern)
        if not path.relative_to(ROOT).parts[0].startswith(".")
    }
)
#: A code span counts as one word; rules about words ignore its content.
CODE = "X"
#: Points that do not end a sentence.
ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|approx|No)\.|^(?:\*\*)?(\d+)\.", re.IGNORECASE)
MARKER = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")
END = re.compile(r"(?<=[.!?])[\"')*_\]]*\s+(?=\S)")


#: Lines that do not continue a paragraph: headings, tables, quotes, comments, HTML.
BLOCK = re.compile(r"\s*([#|>]|<!--|</?\w)")


@dataclass(frozen=True)
class Line:
    """A line of text without Markdown's marks."""

    number: int
    #: heading, prose or cell
    kind: str
    text: str
    #: The next line of the file belongs to the same paragraph.
    continues: bool = False

    def sentences(self) -> list[str]:
        """Return the sentences that the line holds."""
        return [part for part in END.split(ABBREVIATION.sub(CODE, self.text)) if part.strip()]


def plain(text: str) -> str:
    """Return text without code, targets of links, and emphasis."""
    text = re.sub(r"(`+).+?\1", CODE, text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<!--.*?-->|</?\w+[^>]*>", "", text)
    return text.replace("**", "").strip()


def words(sentence: str) -> list[str]:
    """Return the words of a sentence; a sign alone is not a word."""
    return [word for word in sentence.split() if re.search(r"\w", word)]


def read(text: str) -> Iterator[Line]:
    """Yield headings, cells and lines of prose, without blocks of code and comments."""
    rows = _without_code(text)
    for index, (number, row) in enumerate(rows):
        following = rows[index + 1] if index + 1 < len(rows) else (0, "")
        if row.startswith("#"):
            yield Line(number, "heading", plain(row.lstrip("# ")))
        elif row.lstrip().startswith("|"):
            cells = re.split(r"(?<!\\)\|", re.sub(r"(`+).+?\1", CODE, row).strip().strip("|"))
            yield from (
                Line(number, "cell", plain(cell)) for cell in cells if cell.strip(" :-") != ""
            )
        elif row.strip():
            begins = MARKER.match(following[1]) or re.match(r"\s*(\||#|$)", following[1])
            continues = following[0] == number + 1 and not begins
            yield Line(number, "prose", plain(MARKER.sub("", row)), continues)


def _without_code(text: str) -> list[tuple[int, str]]:
    """Return the numbered lines outside code; a block becomes an empty line."""
    rows: list[tuple[int, str]] = []
    fence = ""
    blank = True
    listed = False
    for number, row in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(```+|~~~+)", row)
        if mark and (not fence or row.strip().startswith(fence)):
            fence = "" if fence else mark[1]
            rows.append((number, ""))
            continue
        listed = bool(MARKER.match(row)) or (listed and (row.startswith(" ") or not row.strip()))
        indented = row.startswith("    ") and blank and not listed
        comment = re.fullmatch(r"\s*<!--.*-->\s*", row) is not None
        hidden = bool(fence) or indented or comment
        rows.append((number, "" if hidden else row))
        blank = not row.strip() or (indented and blank)
    return rows


def head(text: str) -> dict[str, str]:
    """Return the table that a page begins with, right below its title."""
    found = re.match(r"# .+\n\n\| \| \|\n\|---\|---\|\n((?:\|.*\n)+)", text)
    rows = found[1].splitlines() if found else []
    pairs = (re.fullmatch(r"\| \*\*(.+?)\*\* \| (.+) \|", row) for row in rows)
    return {pair[1]: pair[2] for pair in pairs if pair}


def masked(text: str) -> str:
    """Return text of the same length, without the points that do not end a sentence."""
    for pattern in (r"(`+).+?\1", r"\]\([^)]*\)"):
        text = re.sub(pattern, lambda found: "X" * len(found[0]), text)
    return ABBREVIATION.sub(lambda found: "X" * len(found[0]), text)


def split(paragraph: str) -> list[str]:
    """Return the sentences of a paragraph, with their marks."""
    cuts = [found.end() for found in END.finditer(masked(paragraph))]
    ends = [*cuts, len(paragraph)]
    return [paragraph[a:b].rstrip() for a, b in zip([0, *cuts], ends, strict=True)]


def reflow(text: str) -> str:
    """Return a page with one sentence per line; code, tables and headings stay as they are."""
    code = {number for number, row in _without_code(text) if not row}
    made: list[str] = []
    paragraph: list[str] = []

    def flush() -> None:
        if not paragraph:
            return
        mark = MARKER.match(paragraph[0])
        first = mark[0] if mark else re.match(r"\s*", paragraph[0])[0]  # type: ignore[index]
        rest = " " * len(first)
        body = " ".join([paragraph[0][len(first) :], *paragraph[1:]])
        made.extend((rest if at else first) + one for at, one in enumerate(split(body)))
        paragraph.clear()

    for number, row in enumerate(text.splitlines(), 1):
        if number in code or BLOCK.match(row) or not row.strip():
            flush()
            made.append(row)
        elif MARKER.match(row) or not paragraph or paragraph[-1].endswith(":"):
            # A line after a colon can stand alone.
            flush()
            paragraph.append(row.rstrip())
        else:
            paragraph.append(row.strip())
    flush()
    return "\n".join(made) + "\n"


def main() -> None:
    """Reflow every page."""
    for page in PAGES:
        before = page.read_text()
        after = reflow(before)
        if after != before:
            page.write_text(after)
            sys.stdout.write(f"{page.relative_to(ROOT)}: one sentence per line\n")


if __name__ == "__main__":
    main()
