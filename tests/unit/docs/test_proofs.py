"""The pages of docs/proofs are written with a head, in the form of all pages."""

from pathlib import Path

import pytest

from scripts.lab import ROOT
from scripts.prose import head, read
from tests import proof_pages
from tests.unit.docs.test_style import HEAD, broken, long, private

PROOFS = ROOT / "docs" / "proofs"


def test_every_long_test_can_write_its_page() -> None:
    files = [
        *ROOT.glob("tests/soak/test_*.py"),
        *(path for path in ROOT.glob("tests/stack/test_*.py") if "mark.long" in path.read_text()),
    ]
    assert {path.stem.removeprefix("test_") for path in files} == set(proof_pages.ABOUT)
    targets = (ROOT / "Makefile").read_text()
    for _, target in proof_pages.ABOUT.values():
        assert f"\n{target}: " in targets


@pytest.mark.parametrize("name", proof_pages.ABOUT)
def test_a_written_page_is_in_the_form_of_all_pages(name: str) -> None:
    path = f"tests/soak/test_{name}.py"
    made = proof_pages.page(path, ["| a | passed | 1 s | 2 |"], ["inputs"], "Tree 0123abc", "soak")
    assert list(head(made)) == HEAD
    found = list(read(made))
    assert [line for line in found if broken(line) or long(line) or private(line)] == []
    assert "| Case | Outcome | Time | inputs |\n|---|---|---|---|\n| a | passed | 1 s | 2 |" in made


@pytest.mark.parametrize("path", sorted(PROOFS.glob("*.md")), ids=lambda path: path.stem)
def test_the_kept_pages_begin_as_the_next_ones_will(path: Path) -> None:
    assert path.read_text().startswith("\n".join(proof_pages.head(path.stem)) + "\n")
