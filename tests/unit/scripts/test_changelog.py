"""The changelog is well-formed; a release needs a date, a tag and a new serial."""

import datetime as dt
from pathlib import Path

import pytest

from scripts import changelog
from scripts import version as versions
from tests.unit.scripts.test_version import Clone

GOOD = """# Changelog

Words before the first release.

## 1.1.0 (2026-11-30, serial 2)

- Something new.
  It is described.

## 1.0.0 (2026-11-01, serial 1)

- The first one.
"""


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    made = Clone(tmp_path, "1.1.0", 2)
    (tmp_path / "CHANGELOG.md").write_text(GOOD)
    made.commit("1.1.0", 2)
    return made


def run(clone: Clone, *words: str) -> int:
    return changelog.main(list(words), clone.root)


def edit(clone: Clone, old: str, new: str) -> None:
    assert old in GOOD
    (clone.root / "CHANGELOG.md").write_text(GOOD.replace(old, new))


def test_this_trees_changelog_is_in_order() -> None:
    assert changelog.main(["check"]) == 0


def test_a_good_one_is_in_order(clone: Clone) -> None:
    assert run(clone, "check") == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("## 1.1.0 (2026-11-30, serial 2)", "## 1.1.0", "line 5: '## 1.1.0' is not the heading"),
        ("serial 2", "serial 1", "serial 1 of 1.1.0 is not above 1 of 1.0.0"),
        ("1.1.0 (", "1.2.0 (", "bundle/release.yml has 1.1.0, serial 2"),
        ("1.0.0 (", "1.1.1 (", "1.1.1 is not older than 1.1.0"),
        ("1.0.0 (", "1.0 (", "'1.0' is not a SemVer version"),
        ("2026-11-30", "30.11.2026", "'30.11.2026' is not a date"),
        ("2026-11-30", "2026-10-30", "1.1.0 is dated before 1.0.0"),
        ("2026-11-01", "unreleased", "1.0.0 is unreleased below a newer release"),
        ("- Something new.\n  It is described.\n", "Something.\n", "1.1.0 lists no change"),
    ],
)
def test_what_is_not_in_order_is_named(
    clone: Clone, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    edit(clone, old, new)
    assert run(clone, "check") == 1
    assert said in capsys.readouterr().err


def test_a_release_is_dated_and_tagged(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(clone, "release") == 1
    assert "git tag -s v1.1.0" in capsys.readouterr().err
    clone.tag("v1.1.0")
    assert run(clone, "release") == 0
    assert run(clone, "release", "v1.1.0") == 0
    assert run(clone, "release", "v1.2.0") == 1
    edit(clone, "2026-11-30", "unreleased")
    assert run(clone, "check") == 0
    assert run(clone, "release") == 1
    assert "1.1.0 is unreleased: write today's date" in capsys.readouterr().err


def test_a_date_in_the_future_is_none(clone: Clone) -> None:
    first = changelog.sections(clone.root / "CHANGELOG.md")[0]
    now = versions.Version("1.1.0", 2, "", "", release=True)
    assert changelog.unready(first, now, "", dt.date(2026, 11, 30)) == []
    assert changelog.unready(first, now, "", dt.date(2026, 11, 29)) == [
        "line 5: 2026-11-30 is in the future"
    ]


def test_notes_are_the_section_of_a_version(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(clone, "notes", "v1.0.0") == 0
    assert capsys.readouterr().out == "- The first one.\n"
    assert run(clone, "notes") == 0
    assert capsys.readouterr().out == "- Something new.\n  It is described.\n"
    assert run(clone, "notes", "9.9.9") == 1


def test_other_words_are_answered_with_the_help(clone: Clone) -> None:
    assert run(clone) == run(clone, "publish") == run(clone, "check", "v1.1.0") == 2
