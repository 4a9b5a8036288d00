"""Deltas also omit wheels, packages and about/ that are in the base's directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.builder import build, completeness, delta_bases
from bundle.errors import AirliftError, Kind
from bundle.format.manifest import Member
from bundle.jumphost import importer, installed, venv
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import (
    FakeSuppliers,
    Keys,
    arguments,
    assert_finished,
    fake_venv,
    run_import,
    wheel,
)
from tests.unit.bundle.deltakit import (
    NEW_LAYER,
    Dist,
    Suppliers,
    manifest_of,
    options,
    refused_unchanged,
    run_build,
)
from tests.unit.bundle.test_bundle_docs import block, shell


def _files(dist: Dist, keys: Keys) -> list[Member]:
    return [m for m in manifest_of(dist.delta, keys).left_out if not m.is_blob]


def test_unchanged_wheels_and_packages_stay_behind(dist: Dist, keys: Keys) -> None:
    full, delta = manifest_of(dist.full, keys), manifest_of(dist.delta, keys)
    left_out = {m.path for m in _files(dist, keys)}
    same = {m.path for m in full.members if m.path.startswith(("wheels/", "packages/"))}
    assert len(same) == 4
    assert left_out >= same
    assert {path.partition("/")[0] for path in left_out} <= {"about", "wheels", "packages"}
    carried = {m.path.partition("/")[0] for m in delta.members}
    assert {"verify.pyz", "content", "oci"} <= carried
    # The release has one hash, however much of it a delta carries.
    assert delta.release_sha256 == full.release_sha256


def test_a_changed_wheel_travels(dist: Dist, tree: Path, tmp_path: Path, keys: Keys) -> None:
    suppliers = Suppliers(NEW_LAYER)
    (name,) = suppliers.wheelhouse[0]
    rebuilt = wheel("airlifttiny", "1.0", {"airlifttiny.py": b"ANSWER = 43\n"})[1]
    suppliers.wheelhouse = {name: rebuilt, **dict([wheel("new", "1", {})])}, b""
    wanted = options(tree, tmp_path, keys, version="1.1.0", since=(dist.base,))
    carried = {m.path for m in run_build(wanted, suppliers).manifest.members}
    assert {f"wheels/{name}", "wheels/new-1-py3-none-any.whl"} <= carried
    assert not [path for path in carried if path.startswith("packages/")]


@pytest.mark.usefixtures("quick")
def test_they_come_from_the_bases_directory_and_cost_no_disk(
    dist: Dist, keys: Keys, home: Home
) -> None:
    run_import(dist.base, keys.trust(), home)
    run_import(dist.delta, keys.trust(), home)
    for member in _files(dist, keys):
        old, new = (home.release(v) / member.path for v in ("1.0.0", "1.1.0"))
        assert old.samefile(new)
    assert_finished(home, dist.delta, keys.trust(), dist.base)
    # The new release does not need the old one's directory.
    shutil.rmtree(home.release("1.0.0"))
    installed.check(home.current, trust=keys.trust(), home=home)
    assert run_import(dist.delta, keys.trust(), home).already is True


@pytest.mark.usefixtures("quick")
def test_the_directory_of_the_base_is_gone(dist: Dist, keys: Keys, home: Home) -> None:
    run_import(dist.base, keys.trust(), home)
    saved = shutil.move(home.release("1.0.0"), home.root.parent / "saved")
    error = refused_unchanged(dist.delta, keys, home)
    assert error.kind is Kind.NEEDS_BASE
    assert f"{len(_files(dist, keys))} of the " in error.what
    assert "1.0.0 (serial 1) was imported here, but its directory was pruned" in error.what
    assert dist.base.name in error.fix
    assert dist.full.name in error.fix
    # Negative control.
    shutil.move(saved, home.release("1.0.0"))
    run_import(dist.delta, keys.trust(), home)
    assert_finished(home, dist.delta, keys.trust(), dist.base)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("damage", ["altered", "short", "gone", "link"])
def test_a_file_of_the_base_is_not_relied_upon_unseen(
    damage: str, dist: Dist, keys: Keys, home: Home, tmp_path: Path
) -> None:
    run_import(dist.base, keys.trust(), home)
    member = max(_files(dist, keys), key=lambda m: m.size)
    path = home.release("1.0.0") / member.path
    data = path.read_bytes()
    if damage == "altered":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "short":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    error = refused_unchanged(dist.delta, keys, home)
    hashed = damage in ("altered", "link")
    assert error.kind is (Kind.RELEASE_ALTERED if hashed else Kind.NEEDS_BASE)
    assert error.where == str(path)
    assert dist.base.name in error.fix
    # The fix in the message works.
    path.unlink(missing_ok=True)
    run_import(dist.base, keys.trust(), home)
    run_import(dist.delta, keys.trust(), home)
    assert_finished(home, dist.delta, keys.trust(), dist.base)


@pytest.mark.usefixtures("quick")
def test_a_wheel_lost_later_is_missed_and_the_full_bundle_brings_it(
    dist: Dist, keys: Keys, home: Home
) -> None:
    run_import(dist.base, keys.trust(), home)
    run_import(dist.delta, keys.trust(), home)
    member = _files(dist, keys)[0]
    old, new = (home.release(v) / member.path for v in ("1.0.0", "1.1.0"))
    new.write_bytes(b"x" * member.size)
    with pytest.raises(AirliftError) as caught:
        installed.check(home.current, trust=keys.trust(), home=home)
    assert (caught.value.kind, caught.value.where) == (
        Kind.RELEASE_ALTERED,
        str(home.current / member.path),
    )
    assert dist.full.name in caught.value.fix
    new.unlink()
    run_import(dist.full, keys.trust(), home)
    installed.check(home.current, trust=keys.trust(), home=home)
    # The files shared the damage, but not the repair.
    assert old.read_bytes() == b"x" * member.size
    assert not old.samefile(new)


@pytest.mark.usefixtures("quick")
def test_the_disk_that_a_delta_needs(
    dist: Dist, keys: Keys, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linked files cost nothing; unpacked wheels cost space in any case."""
    run_import(dist.base, keys.trust(), home)
    delta = manifest_of(dist.delta, keys)
    here = {path.name for path in home.blobs.iterdir()}
    new = [m for m in delta.members if not (m.is_blob and m.sha256 in here)]
    wheels = sum(m.size for m in delta.left_out if m.path.startswith("wheels/"))
    assert wheels
    needed = sum(m.size for m in new) + 4096 * len(new) + wheels * venv.GROWTH
    needed += importer.MARGIN
    monkeypatch.setattr(importer, "free_bytes", lambda _: needed - 1)
    with pytest.raises(AirliftError) as caught:
        run_import(dist.delta, keys.trust(), home)
    assert caught.value.kind is Kind.NO_SPACE
    monkeypatch.setattr(importer, "free_bytes", lambda _: needed)
    assert run_import(dist.delta, keys.trust(), home).new_bytes == sum(m.size for m in new)


@pytest.mark.usefixtures("quick")
def test_a_python_for_which_the_bases_wheels_are_not(
    tree: Path, tmp_path: Path, keys: Keys, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheels that decide it are not in the delta."""
    # Current builds refuse such a wheelhouse.
    monkeypatch.setattr(completeness, "check", lambda *_: None)
    suppliers = Suppliers()
    suppliers.wheelhouse = (
        {"x-1-cp38-cp38-manylinux_2_17_x86_64.whl": wheel("x", "1", {})[1]},
        b"",
    )
    base = run_build(options(tree, tmp_path, keys), suppliers)
    wanted = options(tree, tmp_path, keys, version="1.1.0", since=(base.path,))
    delta = run_build(wanted, suppliers)
    assert not [m for m in delta.manifest.members if m.path.startswith("wheels/")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(venv, "check_python", lambda _: None)
        run_import(base.path, keys.trust(), home)
    with pytest.raises(AirliftError) as caught:
        run_import(delta.path, keys.trust(), home)
    assert (caught.value.kind, "wheels for 3.8" in caught.value.what) == (Kind.PYTHON, True)


@pytest.mark.slow
def test_by_hand_a_delta_makes_a_working_environment(
    full: build.Built, tree: Path, tmp_path: Path, keys: Keys
) -> None:
    """The documented commands use a base's wheels; pip's own wheel is not in the tar either."""
    wanted = options(tree, tmp_path / "stick", keys, version="1.1.0", since=(full.path,))
    built = run_build(wanted, FakeSuppliers(NEW_LAYER))
    assert not [m for m in built.manifest.members if m.path.startswith("wheels/")]
    env = {
        **os.environ,
        "BUNDLE": str(built.path),
        "SIGNERS": str(keys.signers()),
        "SIGNER": "release@airlift.example",
        "AIRLIFT_HOME": str(tmp_path / "opt" / "airlift"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    home = Home(Path(env["AIRLIFT_HOME"]))
    desk = tmp_path / "desk"
    desk.mkdir()
    done = shell(block("by hand"), env, desk)
    assert done.returncode == Kind.NEEDS_BASE.exit_code
    assert not home.root.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(venv, "make", fake_venv)
        run_import(full.path, keys.trust(), home)
    done = shell(block("by hand"), env, desk)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(home.current.readlink()) == "releases/1.1.0"
    python = home.current / "venv" / "bin" / "python"
    code = "import airlifttiny; print(airlifttiny.ANSWER)"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "42\n"
    verify = [str(python), "-m", "bundle", *arguments("verify", home.current, keys, home)]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
    # Commands for carrying need only what the release contains.
    receipt = [str(python), "-m", "bundle", "receipt", "--home", str(home.root)]
    receipt += ["-o", str(tmp_path / "r.json"), "--key", str(keys.key("jump"))]
    for command in (
        receipt,
        [str(python), "-m", "bundle", "diff", str(home.release("1.0.0")), str(home.current)],
        [str(python), "-m", "bundle", "prune", "--home", str(home.root)],
    ):
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    # The environment belongs to the new release alone.
    shutil.rmtree(home.release("1.0.0"))
    assert subprocess.run([python, "-c", code], check=False).returncode == 0


def test_content_and_the_verifier_always_travel() -> None:
    always = ["content/x", "oci/index.json", "verify.pyz", "wheels", "wheelsx/y"]
    there = dict.fromkeys([*always, "wheels/x"], "1")
    base = delta_bases.Base(Path("x"), "1.0.0", 1, "0" * 64, "amd64", "debian", there)
    assert set(delta_bases.left_out(delta_bases.Bases((base,)), there)) == {"wheels/x"}
