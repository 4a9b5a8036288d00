"""Allowed imports between packages of `bundle/`, compared with the real imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from bundle.builder import verifier_pyz
from bundle.cli import catalog
from tests.unit.bundle.bundlekit import TREE

#: From the bottom: a package imports from itself and from the lines above its own.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("bundle.errors",),
    ("bundle.core",),
    ("bundle.format", "bundle.trust"),
    ("bundle.verify",),
    ("bundle.jumphost", "bundle.carry"),
    ("bundle.review",),
    # Shared by all parts of a builder.
    ("bundle.builder.collected", "bundle.builder.problems"),
    ("bundle.builder.cache", "bundle.builder.machine", "bundle.builder.yaml_table"),
    ("bundle.builder.content", "bundle.builder.release", "bundle.builder.wheels"),
    ("bundle.builder.images",),
    ("bundle.builder.hosts",),
    ("bundle.builder.about",),
    ("bundle.builder",),
    ("bundle.cli",),
    ("bundle.__main__",),
)
#: Packages that bundles carry; they need only the standard library.
TRAVELS = LAYERS[:5]
#: Runs only in a release's environment: it encrypts with that release's Ansible Vault.
INSTALLED = "bundle.jumphost.sealed"
#: A release's description comes from files alone, never from an engine or a registry.
MAKERS = ("app", "collect", "engine", "layout", "probes", "recipes", "relock", "upstream")

Imports = Mapping[str, set[str]]


def _module(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _named(tree: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    """Yield every module that a file imports, at any place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{'.' * node.level}{node.module or ''}"
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base


def imports(root: Path) -> dict[str, set[str]]:
    """Return the imports of each module of `bundle/`."""
    known = {_module(root, file): file for file in sorted((root / "bundle").rglob("*.py"))}
    return {name: set(_named(ast.parse(file.read_bytes()), known)) for name, file in known.items()}


def room(module: str) -> tuple[int, str]:
    """Return line and name of a module's package: the longest that matches."""
    fits = [
        (len(name), line, name)
        for line, names in enumerate(LAYERS)
        for name in names
        if f"{module}.".startswith(f"{name}.")
    ]
    _, line, name = max(fits)
    return line, name


def wrong_arrows(found: Imports) -> list[str]:
    """Return imports from a higher package, or from another one on the same line."""
    return [
        f"{module} imports {other}"
        for module, others in sorted(found.items())
        if module != "bundle"
        for other in sorted(others & found.keys() - {"bundle"})
        if room(other)[0] >= room(module)[0] and room(other)[1] != room(module)[1]
    ]


def foreign(found: Imports) -> list[str]:
    """Return carried modules and their imports outside the standard library."""
    rooms = {name for names in TRAVELS for name in names}
    mine = (m for m in found if m not in {"bundle", INSTALLED} and room(m)[1] in rooms)
    return libraries(found, mine)


def libraries(found: Imports, modules: Iterable[str]) -> list[str]:
    """Return imports that are neither ours nor the standard library's."""
    return [
        f"{module} imports {other}"
        for module in sorted(modules)
        for other in sorted(found[module])
        if other.partition(".")[0] not in {"bundle", *sys.stdlib_module_names}
    ]


def circles(found: Imports) -> list[str]:
    """Return modules that import each other, directly or not."""
    reached = {module: reach(found, module) for module in found}
    return sorted(module for module, others in reached.items() if module in others)


def reach(found: Imports, start: str) -> set[str]:
    """Return all modules that a module imports, directly or not."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        for other in found.get(todo.pop(), ()):
            if other in found and other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


@pytest.fixture(scope="module")
def found() -> dict[str, set[str]]:
    return imports(TREE)


def test_every_import_points_down(found: Imports) -> None:
    assert wrong_arrows(found) == []


def test_nobody_imports_the_command_line_but_main(found: Imports) -> None:
    users = {m for m, others in found.items() if any(o.startswith("bundle.cli") for o in others)}
    assert {m for m in users if not m.startswith("bundle.cli")} == {"bundle.__main__"}


def test_what_travels_needs_the_standard_library_only(found: Imports) -> None:
    assert foreign(found) == []


def test_the_verifier_offers_what_needs_no_library(found: Imports) -> None:
    offered = {one.module for one in catalog.COMMANDS.values() if one.carried}
    needed = {"bundle.cli.main", *offered}
    needed |= set[str]().union(*(reach(found, module) for module in needed))
    assert libraries(found, needed) == []
    there = {f"bundle.{name}" for name in (*verifier_pyz.ROOMS, "errors")}
    there |= {f"bundle.review.{name}" for name in verifier_pyz.REVIEWS}
    assert not [
        m for m in needed if m.count(".") > 1 and room(m)[1] not in there and m not in there
    ]


def test_no_module_imports_itself_by_a_way_round(found: Imports) -> None:
    assert circles(found) == []


def test_imports_are_written_in_full(found: Imports) -> None:
    assert [m for m, others in found.items() for o in others if o.startswith(".")] == []


def test_a_release_describes_itself_without_engine_or_registry(found: Imports) -> None:
    about = {m for m in found if m.startswith("bundle.builder.about.")}
    makers = {f"bundle.builder.images.{name}" for name in MAKERS}
    assert makers <= found.keys()
    for module in about:
        assert not reach(found, module) & makers, module


@pytest.mark.parametrize(
    ("module", "planted", "complains"),
    [
        ("bundle.verify.checks", "from bundle.jumphost.store import Home", wrong_arrows),
        ("bundle.format.tar", "from bundle.trust import sshsig", wrong_arrows),
        ("bundle.builder.cache", "from bundle.builder.images import engine", wrong_arrows),
        ("bundle.review.diff", "import bundle.cli.options", wrong_arrows),
        ("bundle.jumphost.store", "import yaml", foreign),
        ("bundle.carry.join", "def f():\n    from zstandard import open", foreign),
        ("bundle.core.files", "from bundle.core import output", circles),
    ],
)
def test_a_planted_import_is_found(
    module: str, planted: str, complains: Callable[[Imports], list[str]], found: Imports
) -> None:
    known = dict.fromkeys(found, TREE)
    assert not complains(found)
    assert complains({**found, module: found[module] | set(_named(ast.parse(planted), known))})


def test_what_needs_an_installed_release_is_not_offered_by_the_verifier(found: Imports) -> None:
    from bundle.cli.catalog import COMMANDS  # noqa: PLC0415 - here only

    users = {command for command in COMMANDS.values() if INSTALLED in reach(found, command.module)}
    assert [command.module for command in users] == ["bundle.cli.state"]
    assert not any(command.carried for command in users)
