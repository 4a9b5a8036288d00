"""The pages of docs/proofs are written with a head, in the form of all pages."""

from pathlib import Path

import pytest

from scripts.lab import ROOT
from tests.proofs import ABOUT, PROOFS, page
from tests.proofs import head as page_head
from tests.unit.docs.prose import head, read
from tests.unit.docs.test_style import HEAD, broken, long, private


def test_every_long_test_can_write_its_page() -> None:
    files = list(ROOT.glob("tests/soak/test_*.py"))
    files += [one for one in ROOT.glob("tests/stack/test_*.py") if "mark.long" in one.read_text()]
    assert {path.stem.removeprefix("test_") for path in files} == set(ABOUT)
    targets = (ROOT / "Makefile").read_text()
    for _, target in ABOUT.values():
        assert f"\n{target}: " in targets or not target


@pytest.mark.parametrize("name", ABOUT)
def test_a_written_page_is_in_the_form_of_all_pages(name: str) -> None:
    rows = ["| a | passed | 1 s | 2 |"]
    made = page(name, "tests/x.py", rows, ["inputs"], "0123abc, 2026-11-30")
    assert list(head(made)) == HEAD
    found = list(read(made))
    assert [line for line in found if broken(line) or long(line) or private(line)] == []
    assert "| Case | Outcome | Time | inputs |\n|---|---|---|---|\n| a | passed | 1 s | 2 |" in made


@pytest.mark.parametrize("path", sorted(PROOFS.glob("*.md")), ids=lambda path: path.stem)
def test_the_kept_pages_begin_as_the_next_ones_will(path: Path) -> None:
    assert path.read_text().startswith("\n".join(page_head(path.stem)) + "\n")
