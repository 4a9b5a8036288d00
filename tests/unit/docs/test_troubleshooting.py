"""docs/TROUBLESHOOTING.md has the contract's five cases, and all names in its pages exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGE = (DOCS / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
PAGES = {
    name: (DOCS / f"{name}.md").read_text() for name in ("TROUBLESHOOTING", "ON_CALL", "FIRST_VM")
}
CASES = [
    "Image not found at deploy",
    "Ten times slower with no errors",
    "Connection refused to a healthy Postgres",
    "An air-gapped, segmented site",
    "A 25-minute pipeline",
]
SECTIONS = dict(re.findall(r"^## (.*)\n\n((?:(?!^## ).*\n?)*)", PAGE, re.MULTILINE))
ROLES = (ROOT / "roles").glob("*/defaults/main.yml")
SETTINGS = {name for path in ROLES for name in yaml.safe_load(path.read_text()) or {}}
SOURCES = "".join(
    path.read_text(encoding="utf-8")
    for folder in (
        "app/observability",
        "app/jobs",
        "roles/monitoring",
        "roles/edge",
        "roles/postgres",
    )
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".yml", ".j2"}
)


def test_the_cases_are_those_of_the_contract() -> None:
    assert [name for name in SECTIONS if name != "Find the section"] == CASES


@pytest.mark.parametrize("case", CASES)
def test_a_case_says_how_to_find_end_and_prevent_it(case: str) -> None:
    text = SECTIONS[case]
    for part in ("**Symptom**", "**Tools**", "**Diagnosis**", "**Prevention**"):
        assert part in text, part
    assert re.search(r"\*\*Fix\*\*|\| Fix \|", text)
    causes = re.findall(r"^### Cause \d", text, re.MULTILINE)
    listed = re.findall(r"^\| \d\. ", text, re.MULTILINE)
    assert max(len(causes), len(listed)) >= 3


@pytest.mark.parametrize("case", CASES)
def test_a_case_shows_what_was_seen(case: str) -> None:
    shown = re.findall(r"^```(?:text|console)$", SECTIONS[case], re.MULTILINE)
    measured = re.findall(r"^\|.*\d s \|.*\d s \|", SECTIONS[case], re.MULTILINE)
    assert len(shown) + len(measured) >= 2


@pytest.mark.parametrize("page", PAGES)
def test_playbooks_tags_and_settings_exist(page: str) -> None:
    text = PAGES[page]
    playbooks = set(re.findall(r"\b(\w+\.yml)\b", text)) - {"hosts.yml", "systems.yml"}
    there = {path.name for path in (ROOT / "playbooks").glob("*.yml")}
    there |= {path.name for path in (ROOT / ".github" / "workflows").glob("*.yml")}
    assert playbooks <= there | {"release.yml", "images.lock.yml", "main.yml"}
    for tags in re.findall(r"--tags ([\w,]+)", text):
        assert {tag for tag in tags.split(",") if not (ROOT / "roles" / tag).is_dir()} == set()
    prefixes = "app|site|postgres|redis|monitoring|preflight|container_engine|edge|tls"
    named = set(re.findall(rf"`((?:{prefixes})_\w+)`", text)) & set(re.findall(r"`(\w+)`", text))
    inventory = {"site_mgmt_addresses", "site_name", "site_public_name"}
    known = {name for name in named if name in SETTINGS | inventory or name in SOURCES}
    assert named - known == set()


@pytest.mark.parametrize("page", PAGES)
def test_the_head_of_the_page_is_complete(page: str) -> None:
    head = PAGES[page].partition("\n## ")[0]
    for part in ("For", "Use when", "Time", "You need", "Result"):
        assert f"| **{part}** |" in head, part
