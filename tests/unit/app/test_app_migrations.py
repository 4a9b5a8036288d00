"""Migrations expand; one that breaks older releases says so, for plans trust its word."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from app.db import schema

ROOT = Path(__file__).resolve().parents[3]
VERSIONS = ROOT / "app" / "db" / "migrations" / "versions"

#: What code of the previous release may trip over: it reads, writes or expects what changes here.
BREAKS = (
    r"\bDROP\s+(TABLE|COLUMN|VIEW|FUNCTION|TYPE|SCHEMA|SEQUENCE)\b",
    r"\bRENAME\b",
    r"\bALTER\s+COLUMN\s+\w+\s+(SET\s+DATA\s+)?TYPE\b",
    r"\bSET\s+NOT\s+NULL\b",
    r"\bDROP\s+DEFAULT\b",
    r"\bADD\s+CONSTRAINT\b",
    r"\bADD\s+COLUMN\b(?![^,;]*\bDEFAULT\b)[^,;]*\bNOT\s+NULL\b",
    r"\b(REVOKE|TRUNCATE|DELETE\s+FROM)\b",
)
RECORD = re.compile(
    r"INSERT INTO schema_version \(version, lowest_compatible\) VALUES \((\d+), (\d+)\)"
)


def statements(source: str) -> str:
    """Return what a migration sends to the database: its texts, without its docstrings."""
    tree = ast.parse(source)
    prose = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.FunctionDef))
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose
    ]
    return "\n".join(texts)


def breaking(source: str) -> list[str]:
    """Return the statements that only a migration that contracts may have."""
    said = statements(source)
    return [found[0] for rule in BREAKS if (found := re.search(rule, said, re.IGNORECASE))]


def records() -> dict[int, int]:
    """Return each schema and the lowest that still works with it, as its migration writes them."""
    found = {}
    for path in sorted(VERSIONS.glob("[0-9]*.py")):
        (pair,) = RECORD.findall(statements(path.read_text()))
        found[int(pair[0])] = int(pair[1])
    return found


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE items",
        "ALTER TABLE items DROP COLUMN name",
        "ALTER TABLE items RENAME COLUMN name TO title",
        "ALTER TABLE items ALTER COLUMN id TYPE text",
        "ALTER TABLE items ALTER COLUMN note SET NOT NULL",
        "ALTER TABLE items ALTER COLUMN created_at DROP DEFAULT",
        "ALTER TABLE items ADD CONSTRAINT short CHECK (length(name) < 9)",
        "ALTER TABLE items ADD COLUMN owner text NOT NULL",
        "REVOKE SELECT ON items FROM airlift_app",
        "DELETE FROM items",
    ],
)
def test_what_breaks_the_previous_release_is_recognised(sql: str) -> None:
    assert breaking(
        f'"""Say DROP TABLE."""\ndef upgrade():\n    """RENAME it."""\n    op({sql!r})\n'
    )


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE items ADD COLUMN note text",
        "ALTER TABLE items ADD COLUMN kept boolean NOT NULL DEFAULT true",
        "CREATE TABLE more (id bigint PRIMARY KEY, name text NOT NULL)",
        "DROP INDEX CONCURRENTLY IF EXISTS jobs_due_by_need",
    ],
)
def test_what_only_adds_is_not(sql: str) -> None:
    assert (
        breaking(f'"""Say DROP TABLE."""\ndef upgrade():\n    """RENAME it."""\n    op({sql!r})\n')
        == []
    )


def test_a_migration_that_contracts_ends_older_releases() -> None:
    lowest = records()
    for version in range(2, schema.HEAD + 1):
        (path,) = VERSIONS.glob(f"{version:04d}_*.py")
        if found := breaking(path.read_text()):
            said = f"{path.name} has {found}: raise its lowest_compatible, or only add"
            assert lowest[version] > lowest[version - 1], said


def test_compatibility_never_returns_and_leaves_the_previous_release_in() -> None:
    """Otherwise the plan of every site refuses the release: the old colour has to run on it."""
    lowest = records()
    assert sorted(lowest) == list(range(1, schema.HEAD + 1))
    for version in range(2, schema.HEAD + 1):
        assert lowest[version - 1] <= lowest[version] < version


def test_the_bundle_says_of_the_schema_what_the_code_says() -> None:
    release = yaml.safe_load((ROOT / "bundle" / "release.yml").read_text())
    assert release["schema"] == {
        "head": schema.HEAD,
        "lowest_compatible": schema.LOWEST_COMPATIBLE,
    }
    assert records()[schema.HEAD] == schema.LOWEST_COMPATIBLE
