"""Versions are ordered by Semantic Versioning 2.0.0, section 11, in one place."""

from __future__ import annotations

import ast
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.builder import release
from bundle.errors import AirliftError
from bundle.format import versions
from tests.unit.bundle.bundlekit import TREE, make_tree

#: The specification's examples, and cases where numbers and letters are easily confused.
ASCENDING = (
    *("0.9.9", "1.0.0-0", "1.0.0-9", "1.0.0-10", "1.0.0--", "1.0.0-1a", "1.0.0-RC", "1.0.0-alpha"),
    *("1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"),
    *("1.0.0-rc.1", "1.0.0-rc.9", "1.0.0-rc.10", "1.0.0", "1.0.2", "1.0.10", "1.2.0", "1.10.0"),
    f"1.{'9' * 5000}.0",
)


def test_the_order_is_that_of_the_specification() -> None:
    mixed = random.Random(1).sample(ASCENDING, len(ASCENDING))
    assert sorted(mixed, key=versions.order) == list(ASCENDING)
    for low, high in itertools.combinations(ASCENDING, 2):
        assert versions.order(low) < versions.order(high)


def test_build_metadata_does_not_count() -> None:
    assert versions.order("1.0.0+20260101") == versions.order("1.0.0")
    assert versions.order("1.0.0-rc.1+a-b.c") == versions.order("1.0.0-rc.1")
    assert versions.order("1.0.0-rc.2+1") < versions.order("1.0.0+0")


_PART = st.one_of(
    st.integers(0, 20).map(str), st.text("abAB-0", min_size=1, max_size=3).filter(str.strip)
)
_VERSION = st.builds(
    lambda core, before: ".".join(map(str, core)) + (f"-{'.'.join(before)}" if before else ""),
    st.tuples(*[st.integers(0, 12)] * 3),
    st.lists(_PART, max_size=3),
)


@given(_VERSION, _VERSION)
def test_any_two_versions_are_compared_as_the_rules_read(one: str, other: str) -> None:
    left, right = versions.order(one), versions.order(other)
    assert (left < right) == (_precedence(one, other) < 0)
    assert (left == right) == (_precedence(one, other) == 0)


def _precedence(one: str, other: str) -> int:
    """Compare two versions by the specification's rules, one by one."""
    (core_a, _, pre_a), (core_b, _, pre_b) = one.partition("-"), other.partition("-")
    a, b = ([int(part) for part in core.split(".")] for core in (core_a, core_b))
    if a != b:
        return -1 if a < b else 1
    if not pre_a or not pre_b:
        return (not pre_a) - (not pre_b)
    for x, y in itertools.zip_longest(pre_a.split("."), pre_b.split(".")):
        if x is None or y is None:
            return -1 if x is None else 1
        if x.isdigit() and y.isdigit():
            if int(x) != int(y):
                return -1 if int(x) < int(y) else 1
        elif x.isdigit() or y.isdigit():
            return -1 if x.isdigit() else 1
        elif x != y:
            return -1 if x < y else 1
    return 0


@pytest.mark.parametrize(
    ("here", "asked"), [("1.1.0-rc.9", "1.1.0-rc.10"), ("1.1.0-rc.1", "1.1.0")]
)
def test_the_next_pre_release_has_the_next_serial_and_the_one_before_has_none(
    here: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    tree = make_tree(tmp_path / "tree", b"")
    file = tree / "bundle" / "release.yml"
    text = file.read_text()
    file.write_text(text.replace("\nversion: 1.0.0\n", f"\nversion: {here}\n"))
    assert release.load(tree, version=asked, serial=None).serial == 2
    file.write_text(text.replace("\nversion: 1.0.0\n", f"\nversion: {asked}\n"))
    with pytest.raises(AirliftError, match="is older than"):
        release.load(tree, version=here, serial=None)


def test_nothing_else_takes_versions_apart() -> None:
    """Code that splits at dots and compares numbers would have an order of its own."""
    found = []
    for folder in ("bundle", "roles", "scripts"):
        for file in sorted((TREE / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_bytes())):
                text = (
                    ast.unparse(node) if isinstance(node, ast.GeneratorExp | ast.ListComp) else ""
                )
                if "int(" in text and ".split('.')" in text and "version" in text:
                    found.append(f"{file.relative_to(TREE)}: {text}")
    assert found == []
