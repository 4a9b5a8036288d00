"""One function opens files that others may have placed; the source is searched for other ways."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.cli.main import main
from bundle.core import files
from bundle.errors import AirliftError, Kind
from bundle.jumphost import kept_trust, venv
from bundle.jumphost.registry import RegistryServer
from bundle.jumphost.store import Home
from bundle.trust import sshsig
from tests.unit.bundle.bundlekit import TREE, Keys, arguments, run_import
from tests.unit.bundle.test_bundle_endless import ENDLESS, Endless, pipe
from tests.unit.bundle.test_bundle_registry import Client

pytestmark = pytest.mark.timeout(60)

# ------------------------------------------------------------------ the source
ROOMS = ("carry", "cli", "core", "format", "jumphost", "review", "trust", "verify")
#: Ways to open a file: functions, methods, and modules that open one.
_NAMES = {"open"}
_METHODS = {"open", "fdopen", "read_bytes", "read_text"}
_OPENERS = {"ZipFile", "copy", "copy2", "copyfile", "copytree", "fileinput", "mmap", "TarFile"}
#: The one function, and files that nobody else can place.
ALLOWED = {
    ("core/files.py", "open"),
    ("core/files.py", "fdopen"),
    # The kernel's list of mounts; /dev/null.
    ("core/output.py", "read_text"),
    # The terminal; a tar in memory.
    ("cli/passphrase.py", "open"),
    ("jumphost/saved_state.py", "open"),
    ("cli/terminal.py", "open"),
    ("cli/terminal.py", "fdopen"),
}


def opened(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each other way to open a file, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Python code for another process is source, too.
            if "import " in node.value and re.search(
                r"(?<![\w.])open\(|\.read_bytes\(", node.value
            ):
                yield "open", node.lineno
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
            is_method = isinstance(node.func, ast.Attribute)
            given = node.args[0] if node.args else None
            careful = (
                isinstance(given, ast.Call) and getattr(given.func, "id", "") == "open_regular"
            )
            named = name in _NAMES or (is_method and name in _METHODS)
            if named or (name in _OPENERS and given is not None and not careful):
                yield name, node.lineno


def test_nothing_else_opens_a_file() -> None:
    found = {
        (path.relative_to(TREE / "bundle").as_posix(), name): line
        for room in ROOMS
        for path in sorted((TREE / "bundle" / room).glob("*.py"))
        for name, line in opened(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not {place: line for place, line in found.items() if place not in ALLOWED}
    assert set(found) == ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        "open(path)",
        "path.open('rb')",
        "os.open(path, 0)",
        "path.read_text()",
        "zipfile.ZipFile(path)",
        "shutil.copyfile(a, b)",
        "CODE = 'import sys; open(sys.argv[1])'",
    ],
)
def test_the_reader_of_the_source_sees_each_way(text: str) -> None:
    assert list(opened(ast.parse(text)))


def test_whoever_opens_says_how_much_and_whether_links_count() -> None:
    """Each call states the limit, so that it cannot be forgotten."""
    for path in (TREE / "bundle").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
                "open_regular",
                "read_file",
            }:
                assert len(node.args) == 2, f"{path}:{node.lineno}"


# ------------------------------------------------------------------ behaviour of the function
def test_a_link_is_followed_only_where_a_person_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    link = tmp_path / "link"
    link.symlink_to("file")
    assert files.read_file(link, 10, links=True) == b"x"
    with pytest.raises(OSError, match="it is a symbolic link"):
        files.read_file(link, 10)
    with pytest.raises(FileNotFoundError):
        files.read_file(tmp_path / "none", 10)
    with pytest.raises(IsADirectoryError):
        files.read_file(tmp_path, 10)


@pytest.mark.parametrize("endless", ENDLESS)
@pytest.mark.parametrize("links", [True, False])
def test_what_does_not_end_is_not_opened(endless: Endless, links: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    endless(path)
    with pytest.raises(OSError, match=r"not a regular file|symbolic link|more than the 10 bytes"):
        files.read_file(path, 10, links=links)


def test_a_file_of_just_the_limit_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert files.read_file(path, 10) == b"x" * 10
    path.write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="more than the 10 bytes allowed"):
        files.read_file(path, 10)


def test_a_file_that_grows_while_it_is_read_is_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    monkeypatch.setattr(files, "_check_regular", lambda *_: None)
    with pytest.raises(OSError, match="more than the 10 bytes allowed"):
        files.read_file(path, 10)


def test_a_new_file_goes_through_no_link_and_waits_for_no_pipe(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for make in (pipe, lambda path: path.symlink_to(victim)):
        path = tmp_path / "new"
        path.unlink(missing_ok=True)
        make(path)
        with files.create(path) as out:
            out.write(b"x")
        assert path.read_bytes() == b"x"
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        files.open_own(path)
    pipe(path)
    with pytest.raises(OSError, match="not a regular file"):
        files.open_own(path)
    assert victim.read_text() == "precious"


# ------------------------------------------------------------------ former gaps
def record(home: Home) -> Path:
    return next(home.accepted.iterdir())


def marker(home: Home) -> Path:
    return home.current.resolve() / "venv" / venv.MARKER


def required(home: Home) -> Path:
    return home.trust / "required_signers"


PLACES: dict[str, tuple[Callable[[Home], Path], Callable[[Home], object]]] = {
    "acceptance record": (record, lambda home: home.acceptances()),
    "required signers": (required, kept_trust.required_signers),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("endless", ENDLESS)
@pytest.mark.parametrize("place", PLACES)
def test_what_an_import_keeps(
    endless: Endless, place: str, small: Path, keys: Keys, home: Home
) -> None:
    run_import(small, keys.trust(), home)
    path, read = PLACES[place]
    endless(path(home))
    with pytest.raises(AirliftError) as caught:
        read(home)
    assert caught.value.kind is Kind.HOME


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("endless", ENDLESS)
@pytest.mark.parametrize("name", ["manifest.json", f"venv/{venv.MARKER}"])
def test_a_release_that_is_not_whole_is_imported_again(
    endless: Endless, name: str, small: Path, keys: Keys, home: Home
) -> None:
    run_import(small, keys.trust(), home)
    path = home.release("1.0.0") / name
    endless(path)
    if name.startswith("venv"):
        assert not venv.is_complete(home.release("1.0.0"), "0" * 64)
    else:
        assert not run_import(small, keys.trust(), home).already
        assert path.is_file()


@pytest.mark.usefixtures("quick")
def test_a_pipe_for_a_compiled_file_is_foreign(small: Path, keys: Keys, home: Home) -> None:
    """Python would wait for ever on it, and an earlier check did."""
    run_import(small, keys.trust(), home)
    folder = home.release("1.0.0") / "bundle" / "__pycache__"
    folder.mkdir(exist_ok=True)
    pipe(folder / f"__init__.{sys.implementation.cache_tag}.pyc")
    words = ["verify", str(home.current), "--home", str(home.root)]
    assert main(words) == Kind.RELEASE_ALTERED.exit_code


@pytest.mark.parametrize("endless", ENDLESS)
def test_a_key(endless: Endless, tmp_path: Path) -> None:
    for name in ("key", "key.pub"):
        endless(tmp_path / name)
        with pytest.raises(AirliftError) as caught:
            sshsig.public_key(tmp_path / name)
        assert caught.value.kind is Kind.SIGNING


@pytest.mark.parametrize("make", [pipe, lambda path: path.symlink_to("/etc/passwd")])
def test_the_registry_serves_no_pipe_and_no_link(make: Endless, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    make(blobs / ("0" * 64))
    with RegistryServer(tmp_path) as server:
        client = Client(server.port)
        for kind in ("blobs", "manifests"):
            answer, _ = client(f"/v2/x/{kind}/sha256:{'0' * 64}")
            assert answer.status == 404


@pytest.mark.usefixtures("quick")
def test_a_longer_file_of_a_release_is_named_without_reading_all_of_it(
    small: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    run_import(small, keys.trust(), home)
    os.truncate(home.current / "ansible.cfg", 1 << 40)
    assert main(arguments("verify", home.current, keys, home)) == Kind.RELEASE_ALTERED.exit_code
    assert "ansible.cfg was altered: it is longer" in capsys.readouterr().err
