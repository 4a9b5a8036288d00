"""Commands and files that the README names exist, and each dependency has a reason."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_make_command_exists(page: Path) -> None:
    named = set(re.findall(r"(?:`|\$ )make ([a-z][a-z-]*)", page.read_text()))
    assert named - TARGETS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_path_of_the_map_exists() -> None:
    rows = re.search(r"## Map of the repository\n(.*?)\n\n(?!\|)", README, re.DOTALL)
    assert rows is not None
    paths = [
        path
        for row in rows[1].splitlines()
        if row.startswith("| `")
        for path in re.findall(r"`([\w./-]+)`", row.split("|")[1])
    ]
    assert len(paths) > 6
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_dependency_has_a_reason() -> None:
    table = README.split("## Dependencies")[1]
    reasons = set(re.findall(r"`([A-Za-z0-9._-]+)(?:\[[\w,]+\])?`", table))
    for file in ("requirements/dev.in", "requirements/controller.in", "app/requirements.in"):
        for line in (ROOT / file).read_text().splitlines():
            if found := re.match(r"([A-Za-z][\w.-]*)", line):
                assert found[1] in reasons, f"{file}: README does not say why {found[1]} is there"
