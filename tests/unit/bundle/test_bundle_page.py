"""docs/BUNDLE.md: a verifier written from it alone accepts valid bundles and refuses attacks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.builder import build
from bundle.cli.main import make_parser
from bundle.format import manifest, tar
from bundle.trust import sshsig
from tests.unit.bundle import stranger
from tests.unit.bundle.bundlekit import IDENTITY, TREE, Keys, Recipe, records
from tests.unit.bundle.test_bundle_manifest import BAD_DELTAS, BAD_MANIFESTS
from tests.unit.bundle.test_bundle_verify import HOSTILE

PAGE = (TREE / "docs" / "BUNDLE.md").read_text()
Craft = Callable[[Recipe], Path]


def rows(before: str, after: str) -> list[list[str]]:
    """Return the cells of a table between two marks."""
    text = PAGE.split(before)[1].split(after)[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_keys_are_those_of_a_manifest(full: build.Built) -> None:
    """`manifest.parse` refuses unknown and missing keys, so no others can exist."""
    data = full.manifest.data
    found = [names(row[0])[0] for row in rows("<!-- manifest keys -->", "<!-- component keys -->")]
    assert sorted(found) == sorted(data)
    cells = [row[0] for row in rows("<!-- component keys -->", "<!-- end of keys -->")]
    assert sorted(n for cell in cells for n in names(cell)) == sorted(data["components"]["app"])


def test_the_header_is_the_one_that_is_written() -> None:
    table = rows("## The archive, byte by byte", "A path of up to 100")
    assert [int(row[0]) for row in table] == [
        sum(int(row[1]) for row in table[:index]) for index in range(len(table))
    ]
    assert sum(int(row[1]) for row in table) == tar.BLOCK
    head = tar.header("content/ansible.cfg", 10)
    for offset, length, field, said in table:
        found = head[int(offset) : int(offset) + int(length)]
        fixed = [part.encode() for part in names(said)]
        if field == "mtime":
            assert found == fixed[0] + b"\0"
        elif fixed:
            assert found.replace(b"\0", b"").startswith(b"".join(fixed)), field
        elif said == "zero":
            assert not any(found), field


def test_the_limits_and_lists_are_the_codes() -> None:
    assert f"| manifest | {manifest.MAX_BYTES >> 20} MiB |" in PAGE
    assert f"| signatures | 1 to {sshsig.MAX_SIGNATURES}," in PAGE
    assert f"| a path | {manifest.MAX_PATH} characters" in PAGE
    always = PAGE.split("These are always there: ")[1].splitlines()[0]
    assert names(always) == [*manifest.REQUIRED]
    assert {*manifest.REQUIRED} == stranger.ALWAYS
    for folder in manifest.DIRECTORIES:
        assert f"`{folder}/`" in PAGE


def test_the_commands_exist() -> None:
    said = re.findall(r"`python -m bundle ([^`]+)`", PAGE)
    assert len(said) > 5
    for line in said:
        make_parser().parse_args(line.split())


def test_the_strangers_verifier_has_nothing_of_ours() -> None:
    text = (TREE / "tests" / "unit" / "bundle" / "stranger.py").read_text()
    imported = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert "tarfile" not in imported
    assert all(str(name).partition(".")[0] in sys.stdlib_module_names for name in imported)
    # An independent verifier must stay short enough to be written again.
    assert len([line for line in text.splitlines() if line.strip()]) < 180


def test_it_accepts_what_is_good(full: build.Built, craft: Craft, keys: Keys) -> None:
    command = [sys.executable, "-I", str(Path(stranger.__file__))]
    command += [str(full.path), str(keys.signers()), IDENTITY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "good: 1.0.0\n"), done.stderr
    many = Recipe(keys=("stranger", "release"), files={"content/" + "d" * 90 + "/" + "f" * 99: b""})
    delta = Recipe("1.1.0", 2, app_layer=b"new", since=Recipe())
    for recipe in (Recipe(), many, delta):
        found = stranger.verify(str(craft(recipe)), str(keys.signers()), IDENTITY)
        assert found["version"] == recipe.version


def _refuses(path: Path, keys: Keys) -> None:
    with pytest.raises(stranger.RefusedError):
        stranger.verify(str(path), str(keys.signers()), IDENTITY)


@pytest.mark.parametrize("name", HOSTILE)
def test_it_refuses_hostile_archives(name: str, small: Path, tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(HOSTILE[name][0](records(small.read_bytes())))
    _refuses(path, keys)


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_it_refuses_bad_manifests(name: str, craft: Craft, keys: Keys) -> None:
    _refuses(craft(Recipe(edit=BAD_MANIFESTS[name][0])), keys)


@pytest.mark.parametrize("name", BAD_DELTAS)
def test_it_refuses_bad_deltas(name: str, craft: Craft, keys: Keys) -> None:
    edit = BAD_DELTAS[name][0]
    _refuses(craft(Recipe("1.1.0", 2, app_layer=b"new", since=Recipe(), edit=edit)), keys)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        path = (TREE / "docs" / file).resolve()
        assert path.is_file(), target
        heads = [
            re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-")
            for head in re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        ]
        assert not anchor or anchor in heads, target
