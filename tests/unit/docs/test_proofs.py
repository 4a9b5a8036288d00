"""The pages of docs/proofs are written with a head, like all pages."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from scripts.lab import ROOT
from scripts.prose import head, read
from tests import proof_pages, proofs
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


def test_a_program_can_read_what_was_proven_when_and_on_which_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "TREE", "0123abc")
    monkeypatch.setattr(proofs, "PROOFS", tmp_path)
    ended = SimpleNamespace(
        keywords=[],
        when="call",
        nodeid="tests/soak/test_from.py::test_it_rolls_back",
        duration=61.4,
        user_properties=[("requests", 700), ("failed", 0)],
    )
    reporter = SimpleNamespace(getreports=lambda outcome: [ended] if outcome == "passed" else [])
    proofs.write_pages(cast("pytest.TerminalReporter", reporter), "soak-from")
    found = json.loads((tmp_path / "from.json").read_text())
    assert (found["tree"], found["test"]) == ("0123abc", "tests/soak/test_from.py")
    assert found["cases"] == [
        {
            "case": "it rolls back",
            "outcome": "passed",
            "seconds": 61,
            "requests": 700,
            "failed": 0,
        }
    ]
    page = (tmp_path / "from.md").read_text()
    assert f"Tree 0123abc, {found['date']}" in page
    assert "| it rolls back | passed | 61 s | 700 | 0 |" in page
