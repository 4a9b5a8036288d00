"""Each link to a heading leads to one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import prose
from scripts.prose import ROOT

PAGES = [ROOT / "CHANGELOG.md", *prose.PAGES]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub generates them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.*?)\s*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        base = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(base if base not in found else f"{base}-1")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_anchor_is_a_heading(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    wrong = [
        f"{file}#{anchor}"
        for file, anchor in links
        if anchor not in anchors((page.parent / file).resolve() if file else page)
    ]
    assert wrong == []


def test_a_heading_that_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Give a client's key (`x`)\n\n```sh\n# no heading\n```\n")
    assert anchors(page) == {"give-a-clients-key-x"}
