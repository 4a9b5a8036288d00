"""docs/ON_CALL.md has exactly one entry for each alert, and names each line of status."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from scripts.metrics_doc import rules

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "ON_CALL.md").read_text(encoding="utf-8")
LOGIC = sorted((ROOT / "roles" / "status" / "logic").glob("*.py"))

ALERTS = [rule["alert"] for rule in rules() if "alert" in rule]
ENTRIES = dict(re.findall(r"^### (.*)\n\n((?:(?!^##).*\n)*)", PAGE, re.MULTILINE))
#: Headings that are no entries.
OTHERS = {"Ask Prometheus"}
#: Placeholder for a value in a line.
GAP = "\0"


def filled(node: ast.expr) -> str | None:
    """Return a string of the source with a gap for each value, or None for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [str(one.value) if isinstance(one, ast.Constant) else GAP for one in node.values]
        return "".join(parts)
    return None


def lines_of_status() -> set[str]:
    """Return the problems that status can report: the texts that become a Problem's `found`."""
    texts: set[str | None] = set()
    for path in LOGIC:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            value: ast.expr | None = None
            if isinstance(node, ast.Assign):
                target = node.targets[0]
                named = target.elts[0] if isinstance(target, ast.Tuple) else target
                if isinstance(named, ast.Name) and named.id == "found":
                    value = node.value.elts[0] if isinstance(node.value, ast.Tuple) else node.value
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "Problem"
            ):
                value = node.args[2]
            if value is not None:
                texts.add(filled(value))
    return {text for text in texts if text}


def told(text: str) -> re.Pattern[str]:
    """Return a pattern for headings and code spans that name a line of status."""
    return re.compile(".+".join(map(re.escape, text.split(GAP))))


def texts_of_status() -> set[str]:
    """Return every string of the source, because some lines are composed elsewhere."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in LOGIC)
    found = {
        filled(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.expr)
    }
    return {text for text in found if text and len(text.replace(GAP, "")) > 10}


LINES = sorted(lines_of_status())
NAMED = [*ENTRIES, *re.findall(r"`([^`\n]+)`", PAGE)]


def test_the_source_has_such_lines() -> None:
    assert len(LINES) > 25
    assert f"{GAP} is missing on {GAP}" in LINES


def test_each_alert_has_an_entry_and_each_entry_is_an_alert_or_a_line() -> None:
    assert set(ALERTS) - set(ENTRIES) == set()
    rest = set(ENTRIES) - set(ALERTS) - OTHERS
    said = [told(line) for line in {*LINES, *texts_of_status()}]
    assert [name for name in rest if not any(line.fullmatch(name) for line in said)] == []


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.replace(GAP, "X"))
def test_each_line_of_status_is_named(line: str) -> None:
    assert any(told(line).fullmatch(name) for name in NAMED), line.replace(GAP, "…")


@pytest.mark.parametrize("name", sorted(set(ENTRIES) - OTHERS))
def test_an_entry_says_what_is_seen_and_what_to_do(name: str) -> None:
    text = ENTRIES[name].lower()
    assert "**symptom**" in text
    assert "**fix**" in text
    assert "**verify**" in text or name not in ALERTS
