"""The parts of the service import only parts below them, and no import is circular."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[3] / "app"
#: From the top: a part imports those below it. A module outside of a folder is a part of its own.
LAYERS = (
    {"items", "reports"},
    {"jobs"},
    {"predict", "sources"},
    {"http"},
    {"db"},
    {"observability"},
    {"settings", "flight", "failpoints", "threads"},
)
# The model of a registered database belongs to the settings and to the sources' schemas.
ALLOWED = {("app.settings", "app.sources.schemas")}
# Programs may import everything; Alembic's files are ignored.
PROGRAMS = {"__init__", "__main__", "keys", "key_commands", "gunicorn_conf", "serving", "main"}


def imported(path: Path) -> set[str]:
    """Return the service's modules that a file imports, type-only and late imports included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "app":
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if module(name) else str(node.module) for name in whole}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "app"}
    return found


def module(name: str) -> bool:
    path = APP.parent / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def part(name: str) -> str:
    return [*name.split("."), "__init__"][1]


def files() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(APP.parent).with_suffix("").parts): path
        for path in APP.rglob("*.py")
        if "migrations" not in path.parts
    }


@pytest.mark.parametrize("name", sorted(files()))
def test_a_part_of_the_service_imports_nothing_above_it(name: str) -> None:
    here = part(name)
    if here in PROGRAMS or name == "app.jobs.worker":
        return  # entry points import everything
    level = {one: number for number, layer in enumerate(LAYERS) for one in layer}
    above = {
        other
        for other in imported(files()[name])
        if part(other) not in (here, "__init__") and level[part(other)] <= level[here]
        if (name, other) not in ALLOWED
    }
    assert not above


def test_no_module_of_the_service_is_in_a_circle() -> None:
    TopologicalSorter({name: imported(path) for name, path in files().items()}).prepare()
