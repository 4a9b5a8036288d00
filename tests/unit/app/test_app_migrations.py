"""Migrations only add; one that breaks older releases must record it, because plans rely on it."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg import errors

from app.db import schema
from roles.swap.filter_plugins import swap_plan
from tests.unit.app.appkit import Site

ROOT = Path(__file__).resolve().parents[3]
VERSIONS = ROOT / "app" / "db" / "migrations" / "versions"

#: Statements that can break the previous release, which reads, writes or expects these objects.
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
    """Return the string constants of a migration without its docstrings: the SQL that it sends."""
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
    """Return the statements that only a contracting migration may contain."""
    said = statements(source)
    return [found[0] for rule in BREAKS if (found := re.search(rule, said, re.IGNORECASE))]


def records() -> dict[int, int]:
    """Return the lowest compatible schema by schema, as the migrations record it."""
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
def test_what_only_adds_is_not_reported(sql: str) -> None:
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
    """The old colour must run on the new schema, or each site's plan refuses the release."""
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


# ------------------------------------------------------- the page's example of three releases
PAGE = (ROOT / "docs" / "DEPLOYMENT_STRATEGY.md").read_text()
#: What the code of a release runs, by the schema that it was written for.
CODE = {
    2: ("INSERT INTO items (client, name) VALUES ('a', 'old')", "SELECT name FROM items"),
    3: ("INSERT INTO items (client, name) VALUES ('a', 'old')", "SELECT name FROM items"),
    4: ("INSERT INTO items (client, title) VALUES ('a', 'new')", "SELECT title FROM items"),
    5: ("INSERT INTO items (client, title) VALUES ('a', 'new')", "SELECT title FROM items"),
}


def example(step: str) -> str:
    """Return the SQL of a step as the page shows it."""
    found = re.search(rf"<!-- {step} -->\n( *)```sql\n(.*?)\1```\n", PAGE, re.DOTALL)
    assert found is not None, step
    return textwrap.dedent(found[2])


def runs(connection: psycopg.Connection, head: int, rows: int) -> None:
    """Run the code of a release; it must see all rows that any release wrote."""
    write, read = CODE[head]
    connection.execute(write)
    said = [row[0] for row in connection.execute(read).fetchall()]
    assert len(said) == rows
    assert None not in said


@pytest.mark.docker
def test_the_example_of_three_releases_keeps_the_previous_one_running(empty_site: Site) -> None:
    empty_site.command("migrate")
    with empty_site.connect() as connection:
        runs(connection, 2, 1)
        for rows, (step, head) in enumerate((("expand", 3), ("move", 4), ("contract", 5)), 1):
            connection.execute(example(step))
            # On the new schema: the previous release, the new one, the previous one again.
            runs(connection, head - 1, rows * 3 - 1)
            runs(connection, head, rows * 3)
            runs(connection, head - 1, rows * 3 + 1)
        with pytest.raises(errors.UndefinedColumn), connection.transaction():
            runs(connection, 3, 0)


@pytest.mark.docker
def test_in_the_example_both_columns_follow_whichever_is_written(empty_site: Site) -> None:
    empty_site.command("migrate")
    with empty_site.connect() as connection:
        connection.execute(example("expand"))
        for column, other in (("name", "title"), ("title", "name")):
            connection.execute("DELETE FROM items")
            connection.execute(f"INSERT INTO items (client, {column}) VALUES ('a', 'one')")
            connection.execute(f"UPDATE items SET {column} = 'two'")
            assert connection.execute(f"SELECT {other} FROM items").fetchall() == [("two",)]


def test_the_example_records_what_its_table_says_and_each_plan_allows() -> None:
    records = [RECORD.findall(example(step)) for step in ("expand", "move", "contract")]
    assert records == [[("3", "1")], [("4", "1")], [("5", "4")]]
    for ((head, lowest),), number in zip(records, ("0003", "0004", "0005"), strict=True):
        assert re.search(rf"\| {number}: .* \| {head}, lowest {lowest} \|", PAGE)
    edge = {"release": "1.1.0", "serial": 2}
    for ((head, lowest),), before in zip(records, (2, 3, 4), strict=True):
        new = {"version": "1.9.0", "schema": {"head": int(head), "lowest_compatible": int(lowest)}}
        found = {
            "new": new,
            "old": {"schema": {"head": before}},
            "database": {"version": before, "lowest_compatible": 1},
        }
        assert swap_plan.problems_of_schema(found, edge) == []
    # A jump from 1.1.0 to 1.3.0 is refused: the code of 1.1.0 would not run on the schema.
    found["old"] = {"schema": {"head": 3}}
    assert "would break release 1.1.0" in swap_plan.problems_of_schema(found, edge)[0]


def test_the_page_quotes_the_migration_and_the_plan_as_they_are() -> None:
    quoted = re.search(r"```python\n(def upgrade.*?)```", PAGE, re.DOTALL)
    assert quoted is not None
    assert quoted[1] in (VERSIONS / "0002_due_by_need.py").read_text()
    rule = {"minimum_version": "1.0.0", "required_stops": ["1.2.0"]}
    new = {"version": "1.3.0", "serial": 4, "upgrade": rule, "image_source": "debian"}
    found = {"new": new, "old": {}, "command": ""}
    (said,) = swap_plan.problems_of_release(found, {"release": "1.1.0", "serial": 2})
    assert f"\n{said}\n" in PAGE
