"""Read-only commands of the documents, run on the installed site, print what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.journey import Journey
from scripts.lab import ROOT

BLOCK = re.compile(r"<!-- on ([\w-]+) -->\n```console\n(.*?)\n?```", re.DOTALL)
PAGES = sorted((ROOT / "docs").glob("*.md"))
TYPED = [
    pytest.param(host, command, answer, id=f"{page.stem}-{host}-{number}")
    for page in PAGES
    for host, block in BLOCK.findall(page.read_text(encoding="utf-8"))
    for number, (command, answer) in enumerate(
        (one.partition("\n")[0], one.partition("\n")[2].strip("\n"))
        for one in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    )
]


def test_the_documents_have_such_commands() -> None:
    pages = {Path(page).stem for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))}
    assert pages >= {"DOCKER_SECURITY", "ON_CALL", "TROUBLESHOOTING"}
    assert TYPED


@pytest.mark.parametrize(("host", "command", "answer"), TYPED)
def test_a_command_answers_as_written(
    installed: Journey, host: str, command: str, answer: str
) -> None:
    done = installed.lab.console(host, f"{{ {command}; }} 2>&1 || :")
    assert done.output.strip("\n") == answer
