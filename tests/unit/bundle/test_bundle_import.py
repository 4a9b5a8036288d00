"""Import uses nothing before it is trusted, and a rerun completes it after a kill at any point."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.builder import build, content
from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.jumphost import importer
from bundle.jumphost.kept_trust import required_signers
from bundle.jumphost.store import Home
from bundle.trust.sshsig import Trust
from tests.unit.bundle.bundlekit import (
    FakeSuppliers,
    Keys,
    Recipe,
    arguments,
    assert_finished,
    everything,
    join,
    records,
    run_import,
)

Craft = Callable[[Recipe], Path]


def refused(path: Path, trust: Trust, home: Home) -> AirliftError:
    with pytest.raises(AirliftError) as caught:
        run_import(path, trust, home)
    assert caught.value.fix
    return caught.value


@pytest.mark.slow
def test_a_jump_host_is_set_up_from_the_bundle_alone(  # noqa: PLR0917 - fixtures
    full: build.Built,
    keys: Keys,
    home: Home,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """verify.pyz, extracted as a client would, makes a working release without a network."""
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
    code = (
        "import airlifttiny, bundle.jumphost.registry; print(airlifttiny.ANSWER, bundle.__file__)"
    )
    answer = subprocess.run(
        [python, "-c", code], cwd="/", capture_output=True, text=True, check=True
    ).stdout.split()
    assert answer == ["42", str(home.release("1.0.0") / "bundle" / "__init__.py")]
    assert list((home.current / "bundle" / "__pycache__").glob("*.pyc"))

    # From now on the installed verifier works, with the kept list of signers.
    again = subprocess.run(
        [python, "-m", "bundle", "import", full.path, "--home", home.root, "--json"],
        cwd=home.current,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["already_imported"] is True

    # The older release's Python imports a newer one.
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
    # The new environment uses the system's Python, not the old release's.
    config = (home.current / "venv" / "pyvenv.cfg").read_text()
    assert str(home.root) not in config.split("command")[0]
    # The older release may be repaired, but never becomes current.
    assert run_import(full.path, keys.trust(), home).restored
    assert str(home.current.readlink()) == "releases/1.1.0"


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
    assert run_import(small, keys.trust(), home).already is False
    before = everything(home.root)
    assert run_import(small, keys.trust(), home).already is True
    after = everything(home.root)
    before.pop("store/lock")
    after.pop("store/lock")
    assert before == after


@pytest.mark.usefixtures("quick")
def test_what_was_damaged_is_restored_by_the_same_command(
    small: Path, keys: Keys, home: Home
) -> None:
    run_import(small, keys.trust(), home)
    next(home.blobs.iterdir()).unlink()
    (home.current / "playbooks" / "install.yml").write_text("evil and longer")
    assert run_import(small, keys.trust(), home).already is False
    assert_finished(home, small, keys.trust())


@pytest.mark.usefixtures("quick")
def test_an_installed_release_is_checked_again(
    small: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    run_import(small, keys.trust(), home)
    assert main(arguments("verify", home.current, keys, home)) == 0
    playbook = home.current / "playbooks" / "install.yml"
    playbook.write_text("[]!")
    assert main(arguments("verify", home.current, keys, home)) == Kind.RELEASE_ALTERED.exit_code
    assert "install.yml was altered" in capsys.readouterr().err
    playbook.write_text("[]\n")
    extra = home.current / "roles" / "evil.yml"
    extra.parent.mkdir()
    extra.write_text("x")
    assert main(arguments("verify", home.current, keys, home)) == Kind.RELEASE_ALTERED.exit_code
    assert "evil.yml is not part of the release" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_records_and_lists_are_kept(craft: Craft, keys: Keys, home: Home, tmp_path: Path) -> None:
    lines = keys.line(), keys.line("second", identity="security@airlift.example")
    both = craft(Recipe(keys=("release", "second")))
    run_import(both, keys.trust(*lines, required=2), home)
    record = json.loads(next(home.accepted.iterdir()).read_bytes())
    assert [s["identity"] for s in record["signers"]] == [
        "release@airlift.example",
        "security@airlift.example",
    ]
    assert record["accepted"].endswith("Z")
    assert (home.trust / "allowed_signers").read_text() == "".join(lines)
    assert required_signers(home) == 2
    # A later bundle with one signature is refused without an option.
    single = craft(Recipe("1.1.0", 2))
    command = ["import", str(single), "--home", str(home.root)]
    assert main(command) == Kind.TOO_FEW_SIGNERS.exit_code
    # A new list replaces the old one, which is kept beside it.
    new = (*lines, "# rotated\n")
    run_import(
        craft(Recipe("1.1.0", 2, keys=("release", "second"))), keys.trust(*new, required=2), home
    )
    assert (home.trust / "allowed_signers").read_text() == "".join(new)
    assert (home.trust / "allowed_signers.old").read_text() == "".join(lines)


@pytest.mark.usefixtures("quick")
def test_shared_layers_are_written_once(craft: Craft, keys: Keys, home: Home) -> None:
    first = run_import(craft(Recipe()), keys.trust(), home)
    second = run_import(craft(Recipe("1.1.0", 2)), keys.trust(), home)
    assert second.new_bytes < first.new_bytes - 3000


def test_too_little_disk_is_known_before_anything_is_written(
    small: Path, keys: Keys, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "free_bytes", lambda _: 1 << 20)
    error = refused(small, keys.trust(), home)
    assert error.kind is Kind.NO_SPACE
    assert re.search(r"needs [\d.]+ MB, but only [\d.]+ MB are free", error.what)
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
