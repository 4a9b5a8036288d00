"""Import: nothing is used before it is trusted, and a kill at any point is finished by a rerun."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle import bootstrap, build, content, importer, installed, sshsig, verify
from bundle.cli import main
from bundle.errors import AirliftError, Kind
from bundle.importer import Imported
from bundle.sshsig import Trust
from bundle.store import Home
from tests.unit.bundle.bundlekit import TREE, FakeSuppliers, Keys, Recipe, join, records

Craft = Callable[[Recipe], Path]


def fake_venv(release: Path, manifest_sha256: str) -> None:
    """Stands for the seconds that a real virtual environment takes."""
    (release / "venv" / "bin").mkdir(parents=True, exist_ok=True)
    python = release / "venv" / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    (release / "venv" / bootstrap.MARKER).write_text(manifest_sha256)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "make", fake_venv)


def run(path: Path, trust: Trust, home: Home) -> Imported:
    return importer.run(path, trust=trust, home=home, log=lambda _: None, progress=lambda _: None)


def refused(path: Path, trust: Trust, home: Home) -> AirliftError:
    with pytest.raises(AirliftError) as caught:
        run(path, trust, home)
    assert caught.value.fix
    return caught.value


def everything(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def assert_finished(home: Home, path: Path, trust: Trust) -> None:
    """Everything is in its place and nothing else is."""
    with verify.opened(path, trust=trust, home=home) as bundle:
        found = bundle.manifest
        assert bundle.accepted is not None
        assert installed.is_complete(home, home.release(found.version), bundle.raw_manifest, found)
    installed.check(home.current, trust=trust, home=home)
    assert str(home.current.readlink()) == f"releases/{found.version}"
    assert {p.name for p in home.blobs.iterdir()} == {m.sha256 for m in found.members if m.is_blob}
    assert list(home.incoming.iterdir()) == []
    assert [p.name for p in home.releases.iterdir()] == [found.version]
    assert not list(home.root.rglob("*.part"))


def test_a_jump_host_is_set_up_from_the_bundle_alone(  # noqa: PLR0917 - fixtures
    full: build.Built,
    keys: Keys,
    home: Home,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """verify.pyz, taken out as a client would, makes a working release without any network."""
    pyz = tmp_path / "verify.pyz"
    with pyz.open("wb") as out:
        subprocess.run(["tar", "-xOf", str(full.path), "verify.pyz"], stdout=out, check=True)
    hostile = {"PIP_INDEX_URL": "http://127.0.0.1:1/", "PYTHONPATH": "/nowhere", "PIP_USER": "1"}
    command = [sys.executable, "-I", str(pyz), "import", str(full.path), "--home", str(home.root)]
    command += ["--allowed-signers", str(keys.signers()), "--identity", "release@airlift.example"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **hostile}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "trusted" in done.stdout
    assert "SHA256:" in done.stdout
    assert "ansible-playbook -i" in done.stdout
    assert_finished(home, full.path, keys.trust())

    python = home.current / "venv" / "bin" / "python"
    code = "import airlifttiny, bundle.registry; print(airlifttiny.ANSWER, bundle.__file__)"
    answer = subprocess.run(
        [python, "-c", code], cwd="/", capture_output=True, text=True, check=True
    ).stdout.split()
    assert answer == ["42", str(home.release("1.0.0") / "bundle" / "__init__.py")]
    assert list((home.current / "bundle" / "__pycache__").glob("*.pyc"))

    # From now on its own verifier does it, and knows whom to trust.
    again = subprocess.run(
        [python, "-m", "bundle", "import", full.path, "--home", home.root, "--json"],
        cwd=home.current,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["already_imported"] is True

    # A newer release, imported by the older one's Python.
    monkeypatch.setattr(content, "COLLECTIONS", ())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225601")
    options = build.Options(
        tree=tree, out=tmp_path, keys=(keys.key(),), identity="x", version="1.1.0"
    )
    new = build.build(options, FakeSuppliers(b"new layer" * 500), log=lambda _: None)
    done = subprocess.run(
        [python, "-m", "bundle", "import", new.path, "--home", home.root],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(home.current.readlink()) == "releases/1.1.0"
    assert home.release("1.0.0").is_dir()
    # The new environment stands on the system's Python, not on the old release.
    config = (home.current / "venv" / "pyvenv.cfg").read_text()
    assert str(home.root) not in config.split("command")[0]
    assert refused(full.path, keys.trust(), home).kind is Kind.OLDER


def _arguments(command: str, path: Path, keys: Keys, home: Home) -> list[str]:
    signers = str(keys.signers())
    return [command, str(path), "--allowed-signers", signers, "--home", str(home.root)]


def test_sites_are_never_touched_and_refusals_write_nothing_usable(
    small: Path, tmp_path: Path, keys: Keys, home: Home
) -> None:
    site = home.sites / "acme" / "hosts.yml"
    site.parent.mkdir(parents=True)
    site.write_text("mine")
    parts = records(small.read_bytes())
    parts[-1].data = bytes([parts[-1].data[0] ^ 1]) + parts[-1].data[1:]
    bad = tmp_path / "bad.tar"
    bad.write_bytes(join(parts))
    error = refused(bad, keys.trust(), home)
    assert error.kind is Kind.ALTERED
    assert site.read_text() == "mine"
    assert not home.current.exists()
    assert list(home.blobs.iterdir()) == []
    assert list(home.releases.iterdir()) == []
    assert list(home.accepted.iterdir()) == []
    assert list(home.trust.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_importing_twice_changes_nothing(small: Path, keys: Keys, home: Home) -> None:
    assert run(small, keys.trust(), home).already is False
    before = everything(home.root)
    assert run(small, keys.trust(), home).already is True
    after = everything(home.root)
    before.pop("store/lock")
    after.pop("store/lock")
    assert before == after


@pytest.mark.usefixtures("quick")
def test_what_was_damaged_is_restored_by_the_same_command(
    small: Path, keys: Keys, home: Home
) -> None:
    run(small, keys.trust(), home)
    next(home.blobs.iterdir()).unlink()
    (home.current / "playbooks" / "install.yml").write_text("evil and longer")
    assert run(small, keys.trust(), home).already is False
    assert_finished(home, small, keys.trust())


@pytest.mark.usefixtures("quick")
def test_an_installed_release_is_checked_again(
    small: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    run(small, keys.trust(), home)
    assert main(_arguments("verify", home.current, keys, home)) == 0
    playbook = home.current / "playbooks" / "install.yml"
    playbook.write_text("[]!")
    assert main(_arguments("verify", home.current, keys, home)) == Kind.RELEASE_ALTERED.exit_code
    assert "install.yml was altered" in capsys.readouterr().err
    playbook.write_text("[]\n")
    extra = home.current / "roles" / "evil.yml"
    extra.parent.mkdir()
    extra.write_text("x")
    assert main(_arguments("verify", home.current, keys, home)) == Kind.RELEASE_ALTERED.exit_code
    assert "evil.yml is not part of the release" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_records_and_lists_are_kept(craft: Craft, keys: Keys, home: Home, tmp_path: Path) -> None:
    lines = keys.line(), keys.line("second", identity="security@airlift.example")
    both = craft(Recipe(keys=("release", "second")))
    run(both, keys.trust(*lines, required=2), home)
    record = json.loads((home.accepted / "1.json").read_bytes())
    assert [s["identity"] for s in record["signers"]] == [
        "release@airlift.example",
        "security@airlift.example",
    ]
    assert record["accepted"].endswith("Z")
    assert (home.trust / "allowed_signers").read_text() == "".join(lines)
    assert importer.required_signers(home) == 2
    # A later bundle with one signature is refused, without any option.
    single = craft(Recipe("1.1.0", 2))
    command = ["import", str(single), "--home", str(home.root)]
    assert main(command) == Kind.TOO_FEW_SIGNERS.exit_code
    # A new list replaces the old one, which stays beside it.
    new = (*lines, "# rotated\n")
    run(craft(Recipe("1.1.0", 2, keys=("release", "second"))), keys.trust(*new, required=2), home)
    assert (home.trust / "allowed_signers").read_text() == "".join(new)
    assert (home.trust / "allowed_signers.old").read_text() == "".join(lines)


@pytest.mark.usefixtures("quick")
def test_shared_layers_are_written_once(craft: Craft, keys: Keys, home: Home) -> None:
    first = run(craft(Recipe()), keys.trust(), home)
    second = run(craft(Recipe("1.1.0", 2)), keys.trust(), home)
    assert second.new_bytes < first.new_bytes - 3000


def test_too_little_disk_is_known_before_anything_is_written(
    small: Path, keys: Keys, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "free_bytes", lambda _: 1 << 20)
    error = refused(small, keys.trust(), home)
    assert error.kind is Kind.NO_SPACE
    assert "MiB" in error.what
    assert list(home.incoming.iterdir()) == []


def test_a_python_without_wheels_is_told_so_first(
    craft: Craft, keys: Keys, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["x-1-cp38-cp38-manylinux_2_17_x86_64.whl", "y-1-cp37-abi3-linux_x86_64.whl"]
    path = craft(Recipe(files={f"wheels/{name}": b"" for name in names}))
    error = refused(path, keys.trust(), home)
    assert (error.kind, "wheels for 3.8" in error.what) == (Kind.PYTHON, True)


def test_a_home_of_somebody_else(small: Path, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = refused(small, keys.trust(), Home(tmp_path / "file" / "airlift"))
    assert error.kind is Kind.HOME
    assert "install -d" in error.fix


def test_two_imports_at_once(small: Path, keys: Keys, home: Home) -> None:
    home.create()
    with home.lock():
        error = refused(small, keys.trust(), home)
    assert error.kind is Kind.LOCKED
    assert str(os.getpid()) in error.what


# What changes the disk: an import can die before each of these calls.
STEPS: list[tuple[Any, str]] = [
    *((os, name) for name in ("fsync", "mkdir", "rename", "replace", "write", "symlink")),
    *((os, name) for name in ("unlink", "rmdir", "close")),
    *((Path, name) for name in ("rename", "replace", "write_bytes", "symlink_to")),
    (importer, "sync_filesystem"),
    (bootstrap, "make"),
]


class Dying:
    """Calls a function, or kills the process when its turn has come."""

    left = 0

    @classmethod
    def wrap(cls, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            cls.left -= 1
            if cls.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return step


def killed_at(step: int, path: Path, trust: Trust, home: Home) -> int | None:
    """Import in a child that dies at its n-th step; None, or the steps left if it came through."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        bootstrap.make = fake_venv
        # ssh-keygen's pipes and temporary files would be most of the steps.
        with verify.opened(path, trust=trust, home=None) as bundle:
            known = bundle.verdict
        sshsig.verify = lambda *_: known  # type: ignore[assignment]
        Dying.left = step
        for owner, name in STEPS:
            setattr(owner, name, Dying.wrap(getattr(owner, name)))
        code = 1
        with contextlib.suppress(BaseException):
            run(path, trust, home)
            left = Dying.left
            Dying.left = 0
            os.write(writer, str(left).encode())
            code = 0
        os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        text = stream.read()
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert status == 0
    return int(text)


@pytest.mark.usefixtures("quick")
def test_killed_anywhere_the_same_command_finishes(small: Path, keys: Keys, tmp_path: Path) -> None:
    trust = keys.trust()
    left = killed_at(1_000_000, small, trust, Home(tmp_path / "whole"))
    assert left is not None
    steps = 1_000_000 - left
    assert steps > 60
    seen = set()
    for step in sorted({*range(1, steps, 5), steps - 1, steps}):
        home = Home(tmp_path / f"home-{step}")
        # The order of two threads' steps varies a little; near the end it may come through.
        assert killed_at(step, small, trust, home) is None or step > steps - 5
        seen.add((home.current.exists(), bool(everything(home.root) if home.root.exists() else 0)))
        if home.current.is_symlink():
            # Whatever is current is complete.
            installed.check(home.current, trust=trust, home=home)
            assert (home.current / "venv" / bootstrap.MARKER).is_file()
        elif home.accepted.exists() and not list(home.accepted.iterdir()):
            assert not home.releases.exists() or not list(home.releases.iterdir())
        run(small, trust, home)
        assert_finished(home, small, trust)
        shutil.rmtree(home.root)
    # Deaths before anything was written, on the way, and after the last rename were all seen.
    assert {(False, False), (False, True), (True, True)} <= seen


@pytest.mark.usefixtures("quick")
def test_a_rerun_does_not_write_what_is_staged(small: Path, keys: Keys, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    step = 30
    with verify.opened(small, trust=keys.trust(), home=None) as bundle:
        staged = home.incoming / bundle.sha256 / "blobs"
    while not staged.is_dir() or not any(path.suffix != ".part" for path in staged.iterdir()):
        step += 3
        assert killed_at(step, small, keys.trust(), home) is None
    done = [path for path in staged.iterdir() if path.suffix != ".part"]
    inode = done[0].stat().st_ino
    run(small, keys.trust(), home)
    assert home.blob(done[0].name).stat().st_ino == inode


def test_a_killed_import_takes_its_pip_along(tmp_path: Path) -> None:
    """Else the orphan would write into the environment that the next import makes."""
    note = tmp_path / "pid"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "import sys; from pathlib import Path; from bundle import bootstrap;"
        f"bootstrap._run([sys.executable, '-c', {child!r}], Path({str(tmp_path)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=TREE)
    while not (note.exists() and note.read_text()):
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while _is_running(int(note.read_text())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_running(int(note.read_text()))


def _is_running(pid: int) -> bool:
    """Whether it lives: an orphan in a container without an init stays as a zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_an_import_killed_while_pip_runs_is_finished(
    full: build.Built, keys: Keys, home: Home
) -> None:
    command = [sys.executable, "-m", "bundle", *_arguments("import", full.path, keys, home)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=TREE)
    assert process.stderr is not None
    assert any("virtual environment" in line for line in process.stderr)
    process.kill()
    process.wait()
    assert not home.current.exists()
    assert subprocess.run(command, cwd=TREE, capture_output=True, check=False).returncode == 0
    assert_finished(home, full.path, keys.trust())


@pytest.mark.usefixtures("quick")
def test_an_abandoned_import_leaves_nothing_to_the_next(
    craft: Craft, small: Path, keys: Keys, home: Home
) -> None:
    assert killed_at(60, small, keys.trust(), home) is None
    assert list(home.incoming.iterdir())
    newer = craft(Recipe("1.1.0", 2))
    run(newer, keys.trust(), home)
    assert_finished(home, newer, keys.trust())
