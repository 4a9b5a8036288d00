"""Commands and options in the documents exist."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from swap_agent.__main__ import parser as agent_parser

from app.__main__ import _parser as service_parser
from bundle.cli import catalog
from bundle.cli.main import make_parser
from scripts.prose import PAGES, ROOT

PROGRAMS = {
    "bundle": make_parser(),
    "service": service_parser(),
    "agent": agent_parser(),
}
#: How a page calls a program; the command, perhaps a subcommand, and options follow.
CALLS = (
    ("bundle", r"-m bundle"),
    ("bundle", r"\bverify\.pyz(?= [a-z])"),
    ("service", r"-m app"),
    ("service", r"-m app\.(?=keys)"),
    ("agent", r"\bairlift-swap"),
)
#: How settings that `-e` can set are defined.
SETTING = re.compile(r"^ *([a-z]\w+):|\{\{ ([a-z]\w+) \| default\(", re.MULTILINE)
SETTINGS = {
    name
    for folder in ("playbooks", "roles")
    for path in (ROOT / folder).rglob("*.yml")
    for names in SETTING.findall(path.read_text(encoding="utf-8"))
    for name in names
}
#: Ansible's own setting, and a placeholder.
SETTINGS |= {"ansible_python_interpreter", "NAME"}
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}


def lines(text: str) -> list[str]:
    """Return the code of a page: spans, and lines of blocks joined with their continuations."""
    blocks = re.findall(r"^\s*```\w+\n(.*?)^\s*```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^\s*```.*?^\s*```", "", text, flags=re.DOTALL | re.MULTILINE)
    shown = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [*shown, *re.findall(r"`([^`\n]+)`", prose)]


def problems(program: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """Return the words of a call that the program does not know."""
    parsers, known = program, set(program._option_string_actions)
    found: list[str] = []
    while actions := [one for one in parsers._actions if isinstance(one.choices, dict)]:
        if not words or not re.fullmatch(r"[a-z][a-z-]*", words[0]):
            return found  # the page names only the program
        choices = actions[0].choices
        assert isinstance(choices, dict)
        if words[0] not in choices:
            return [words[0]]
        parsers, words = choices[words[0]], words[1:]
        known |= set(parsers._option_string_actions)
    return found + [word for word in words if re.match(r"--?[a-z]", word) and word not in known]


def called(line: str) -> list[tuple[str, list[str]]]:
    """Return our programs in a line of code, each with its words up to the next command."""
    found = []
    for name, call in CALLS:
        for rest in re.split(call, line)[1:]:
            end = re.split(r"[|#><;&]|\s-- |: [A-Z]", rest, maxsplit=1)[0]
            words = [word.rstrip(":,.") for word in end.replace("=", " ").split()]
            found.append((name, words))
    return found


def unknown(text: str) -> list[str]:
    """Return commands, settings and paths in a page that do not exist."""
    wrong = [
        f"{line}: {word}"
        for line in lines(text)
        for program, words in called(line)
        for word in problems(PROGRAMS[program], words)
    ]
    for line in lines(text):
        wrong += [
            f"{line}: {name}" for name in re.findall(r"-e (\w+)=", line) if name not in SETTINGS
        ]
        paths = re.findall(r"(?<![\w/.-])((?:scripts|playbooks)/[\w/-]+\.(?:py|sh|yml))\b", line)
        modules = re.findall(r"-m (scripts\.[\w.]+)", line)
        paths += [module.replace(".", "/") for module in modules]
        wrong += [f"{line}: {path}" for path in paths if not exists(path)]
    return wrong


def exists(path: str) -> bool:
    """Return whether a file or module of this path exists; NAME is a placeholder."""
    place = ROOT / path
    return place.exists() or place.with_suffix(".py").exists() or Path(path).stem == "NAME"


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_and_option_exists(page: str) -> None:
    assert unknown(TEXTS[page]) == []


def test_the_documents_call_each_program() -> None:
    calls = {name for text in TEXTS.values() for line in lines(text) for name, _ in called(line)}
    assert calls == set(PROGRAMS)
    assert set(catalog.COMMANDS) <= set(make_parser().commands.choices)


@pytest.mark.parametrize(
    "text",
    [
        "`python -m bundle imports BUNDLE`",
        "`python -m bundle import BUNDLE --signers FILE`",
        "`python3 -I verify.pyz unpack BUNDLE`",
        "```console\n$ python -m bundle prune \\\n    --keeps 2\n```",
        "`python -m app jobs list`",
        "`python -m app.keys remove ID`",
        "`sudo airlift-swap show --colour blue`",
        "`play playbooks/repair.yml`",
        "`play playbooks/keys.yml -e key_new=billing`",
        "`python -m scripts.benchmark`",
        "`scripts/set-up.py`",
    ],
)
def test_a_command_that_does_not_exist_is_found(text: str) -> None:
    assert len(unknown(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "`python -m bundle import BUNDLE --identity NAME | head --lines 1`",
        "```text\npython -m bundle import: REFUSED: this is a delta\n```",
        "Type `sudo airlift-swap unlock --run RUN --failed 'no longer running'`.",
        "`python -m app keys sync keys.json`",
        "`verify.pyz: OK`",
    ],
)
def test_a_command_that_exists_passes(text: str) -> None:
    assert unknown(text) == []
