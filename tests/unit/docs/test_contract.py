"""docs/CONTRACT.md names an existing test for each row of the contract."""

from __future__ import annotations

import ast
import re

import pytest

from scripts.lab import ROOT

PAGE = (ROOT / "docs" / "CONTRACT.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([A-F]\d*) \| .* \| (.*) \|$", PAGE, flags=re.MULTILINE))
PROOF = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(?:\[([\w-]+)\])?`")
SOURCE = ROOT.parent / "shared" / "contract.md"


def exists(file: str, function: str, case: str) -> bool:
    """Return whether a file has this test, with a case of this name."""
    path = ROOT / file
    if not path.is_file():
        return False
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return function in names and (not case or case in texts)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_proof_or_says_that_it_has_none(row: str) -> None:
    proofs = PROOF.findall(ROWS[row])
    assert proofs or "*not yet*" in ROWS[row] or "`make " in ROWS[row]
    assert [proof for proof in proofs if not exists(*proof)] == []


@pytest.mark.skipif(not SOURCE.is_file(), reason="the contract is not beside this clone")
def test_the_rows_are_those_of_the_contract() -> None:
    wanted = re.findall(r"^\| ([A-E]\d+) \|", SOURCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert list(ROWS) == [*wanted, "F"]


@pytest.mark.parametrize(
    "proof",
    [
        ("tests/e2e/none.py", "test_row", ""),
        ("tests/e2e/test_5_contract.py", "test_none", ""),
        ("tests/e2e/test_5_contract.py", "test_row", "A99"),
    ],
)
def test_a_proof_that_is_not_there_is_found(proof: tuple[str, str, str]) -> None:
    assert not exists(*proof)
