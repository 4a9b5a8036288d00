"""docs/PRINT.html is one side of A4 with the commands of docs/INSTALL.md."""

from __future__ import annotations

import html
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from pypdf import PdfReader

from scripts import print_page
from scripts.page_parts import blocks
from scripts.pictures import MissingSourceError, browser
from tests.unit.docs.shown import page

SHEET = print_page.TARGET.read_text(encoding="utf-8")
INSTALL = page("INSTALL.md")
#: Size of A4 in points.
A4 = (595, 842)


def listings(sheet: str) -> list[str]:
    """Return the commands of the sheet, as a browser copies them."""
    pres = re.findall(r"<pre>(.*?)</pre>", sheet, re.DOTALL)
    return [
        "".join(
            html.unescape(re.sub(r"</?i>", "", line)) + "\n"
            for line in re.findall(r"<span>(.*?)</span>", pre)
        )
        for pre in pres
    ]


def printed(sheet: str) -> PdfReader:
    """Print the sheet to a PDF file."""
    try:
        program = browser()
    except MissingSourceError as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "sheet.html"), Path(folder, "sheet.pdf")
        source.write_text(sheet, encoding="utf-8")
        argv = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
        argv += [f"--user-data-dir={folder}/profile", f"--print-to-pdf={target}"]
        subprocess.run([*argv, source.as_uri()], check=True, capture_output=True, timeout=300)
        return PdfReader(target.open("rb"))


def test_it_is_made_from_the_page_for_operators() -> None:
    assert print_page.render(INSTALL) == SHEET


def test_its_commands_are_those_of_the_page_in_the_same_order() -> None:
    assert listings(SHEET) == list(blocks(INSTALL).values())


def test_what_a_command_prints_is_the_pages() -> None:
    shown = blocks(INSTALL, "text")
    assert set(print_page.SHOWN) <= set(shown)
    for mark in print_page.SHOWN:
        kept = print_page.kept(mark, shown[mark])
        assert kept in shown[mark]
        assert print_page.listing(kept, ' class="out"') in SHEET


def test_it_loads_nothing() -> None:
    assert re.findall(r"(?:src|href)=|https?://|url\(|<script", SHEET) == []


@pytest.mark.slow
def test_it_is_one_side_of_a4() -> None:
    reader = printed(SHEET)
    assert len(reader.pages) == 1
    size = reader.pages[0].mediabox
    assert (round(float(size.width)), round(float(size.height))) == A4
    text = reader.pages[0].extract_text()
    assert "Check that the site serves" in text
    assert "INSTALL.md" in text


@pytest.mark.slow
def test_a_sheet_that_grew_too_long_is_noticed() -> None:
    assert (
        len(printed(print_page.render(INSTALL + "\n## 8. More\n" + "| a | b |\n" * 99)).pages) > 1
    )
