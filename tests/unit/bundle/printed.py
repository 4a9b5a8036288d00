"""Collect all fixes and next commands that `bundle/` can print, from its source, as templates.

A template is the text in the source with `{}` for each value. The builder's texts are excluded:
they need a network and an engine, and the builder's own tests run them.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bundle.cli.main import main
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import TREE, Keys

ROOMS = ("carry", "cli", "core", "format", "jumphost", "review", "trust", "verify")
#: Signs of a command: an option, a program, a playbook, a file to write.
COMMAND = re.compile(
    r"(?<![\w-])--?[a-z]|`|\.yml|docs/|=\"|\bpackage\b|"
    r"\b(python3?|ssh-keygen|ssh-add|sudo|cp|rm|mkdir|cd|export|eval|tar|make setup|import)\b"
)
#: What a fix says before a command that consists only of values.
_VALUE = re.compile(r": \{\}")
#: Keywords of calls with help texts, and functions that print nothing.
_HELP = {"help", "about", "examples", "metavar", "description", "default", "dest"}
_QUIET = {"register", "format_help", "add_trust", "add_home", "add_custody"}


@functools.cache
def templates() -> dict[str, str]:
    """Return the place in the source of each template that holds a command."""
    found: dict[str, str] = {}
    for room in ROOMS:
        for path in sorted((TREE / "bundle" / room).glob("*.py")):
            name = f"bundle.{room}.{path.stem}"
            reader = _Reader(
                ast.parse(path.read_text(encoding="utf-8")), name, answers=room == "cli"
            )
            for text, line in reader.printed():
                found.setdefault(
                    text.replace("{}{}", "{}").strip(), f"{path.relative_to(TREE)}:{line}"
                )
    return found


def pattern(template: str) -> re.Pattern[str]:
    """Return a pattern for printed texts that come from this template."""
    return re.compile(".*".join(re.escape(part) for part in template.split("{}")), re.DOTALL)


#: Templates that the states of all modules run.
RUN: set[str] = set()


def runs(*wanted: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator: the test runs these templates, and fails unless it saw all of them."""
    RUN.update(wanted)

    def wrap(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def inner(**fixtures: Any) -> None:
            test(**fixtures)
            # A parametrised test is about one template each time.
            here = {fixtures["template"]} if "template" in fixtures else set(wanted)
            missing = here - fixtures["typed"].seen
            assert not missing, missing

        return inner

    return wrap


@dataclasses.dataclass
class Typed:
    """An operator at a command line who runs what is printed."""

    keys: Keys
    home: Home
    capsys: pytest.CaptureFixture[str]
    desk: Path
    seen: set[str] = dataclasses.field(default_factory=set)

    @property
    def trusting(self) -> list[str]:
        """Return the options of an operator who has a list of signers."""
        return ["--allowed-signers", str(self.keys.signers()), "--home", str(self.home.root)]

    @property
    def at_home(self) -> list[str]:
        """Return the option for all commands on this jump host."""
        return ["--home", str(self.home.root)]

    def does(self, command: str, *more: object) -> str:
        """Run a printed command of Airlift with further options."""
        words = shlex.split(command)
        if words[:3] == ["python3", "-I", "verify.pyz"]:
            return self.works(*words[3:], *more)
        assert words[1:3] == ["-m", "bundle"], command
        assert words[0] == "python" or os.access(words[0], os.X_OK), command
        return self.works(*words[3:], *more)

    def works(self, *words: object) -> str:
        """Run a command that succeeds; return its output."""
        code, out, err = self._run(words)
        assert code == 0, err
        self.note(out)
        return out

    def fails(self, *words: object) -> str:
        """Run a command that fails; return the fix that it prints."""
        code, out, err = self._run(words)
        fix = err.partition("  fix:   ")[2].rstrip("\n")
        assert code
        assert fix, (out, err)
        self.note(fix)
        return fix

    def _run(self, words: tuple[object, ...]) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *self.capsys.readouterr()

    def note(self, text: str) -> None:
        """Record the templates that a text comes from."""
        self.seen |= {one for one in templates() if pattern(one).search(text)}

    def shell(self, command: str, **variables: str) -> str:
        """Run a printed command in a shell whose Python finds Airlift."""
        tools = self.desk / "bin"
        tools.mkdir(exist_ok=True)
        for name in ("python", "python3"):
            if not (tools / name).exists():
                (tools / name).symlink_to(sys.executable)
        path = f"{tools}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=self.desk,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(TREE), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


class _Reader:
    """Reader of one module's fixes and answers."""

    def __init__(self, tree: ast.Module, name: str, *, answers: bool) -> None:
        self._tree = tree
        self._name = name
        self._answers = answers
        self._functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}

    @property
    def _module(self) -> ModuleType:
        return importlib.import_module(self._name)

    def printed(self) -> Iterator[tuple[str, int]]:
        """Yield (template, line) of all texts."""
        for function in self._functions.values():
            for value in self._fixes(function):
                for text in self._texts(value, function):
                    if COMMAND.search(text) or _VALUE.search(text):
                        yield text, value.lineno
            if self._answers and function.name not in _QUIET:
                yield from self._of_answers(function)

    @staticmethod
    def _fixes(function: ast.FunctionDef) -> Iterator[ast.expr]:
        """Yield the expressions that become a fix: keywords, assignments and defaults."""
        names = {"fix", "restore"}
        known = function.args
        pairs = zip(known.args[::-1], known.defaults[::-1], strict=False)
        for argument, default in (*pairs, *zip(known.kwonlyargs, known.kw_defaults, strict=True)):
            if argument.arg in names and default is not None:
                yield default
        for node in ast.walk(function):
            if isinstance(node, ast.keyword) and node.arg in names:
                yield node.value
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in names:
                yield node.value

    def _of_answers(self, function: ast.FunctionDef) -> Iterator[tuple[str, int]]:
        """Yield a function's other texts, except fixes, help and docstrings."""
        skipped: set[int] = set()
        for node in ast.walk(function):
            if isinstance(node, ast.keyword) and node.arg in {*_HELP, "fix", "where"}:
                skipped |= {id(inner) for inner in ast.walk(node.value)}
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                skipped.add(id(node.value))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "AirliftError":
                # The problem's text holds no command, and its fix is read elsewhere.
                skipped |= {id(inner) for argument in node.args for inner in ast.walk(argument)}
        for node in ast.walk(function):
            if id(node) in skipped or not isinstance(node, ast.Constant | ast.JoinedStr):
                continue
            skipped |= {id(inner) for inner in ast.walk(node)}
            for text in self._texts(node, function):
                # A single word is an argument or a file's name.
                for row in text.split("\n"):
                    if " " in row.strip() and COMMAND.search(row):
                        yield row, node.lineno

    def _texts(self, node: ast.expr, function: ast.FunctionDef) -> list[str]:
        """Return all texts that an expression can have, with `{}` for values of a run."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=parts):
                return self._joined([self._texts(part, function) for part in parts])
            case ast.FormattedValue(value=value):
                return self._texts(value, function)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return self._joined([self._texts(left, function), self._texts(right, function)])
            case ast.IfExp(body=body, orelse=other):
                return [*self._texts(body, function), *self._texts(other, function)]
            case ast.BoolOp(values=values):
                return [text for value in values for text in self._texts(value, function)]
            case ast.Name(id=name):
                return self._named(name, function)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                owner = getattr(self._module, name, None)
                found = getattr(owner, attribute, None) if isinstance(owner, ModuleType) else None
                return [found] if isinstance(found, str) else ["{}"]
            case ast.Call(func=ast.Name(id=name)) if name in self._functions:
                called = self._functions[name]
                returns = (n for n in ast.walk(called) if isinstance(n, ast.Return) and n.value)
                return [t for n in returns if n.value for t in self._texts(n.value, called)]
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="get"), args=[_, other]):
                table = getattr(self._module, name, None)
                known = [str(one) for one in table.values()] if isinstance(table, dict) else []
                return [*known, *self._texts(other, function)]
        return ["{}"]

    def _named(self, name: str, function: ast.FunctionDef) -> list[str]:
        assigned = [
            text
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name
            for text in self._texts(node.value, function)
        ]
        known = getattr(self._module, name, None)
        return assigned or ([known] if isinstance(known, str) else ["{}"])

    @staticmethod
    def _joined(parts: list[list[str]]) -> list[str]:
        return ["".join(words) for words in itertools.product(*parts)]
