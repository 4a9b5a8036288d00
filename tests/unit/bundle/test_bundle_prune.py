"""Prune removes only what no release needs, and a kill leaves a valid store."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.format.manifest import Manifest
from bundle.jumphost import bases, installed, prune
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import SOAK, Keys, Recipe, check, everything, run_import
from tests.unit.bundle.deltakit import refused_unchanged, snapshot
from tests.unit.bundle.test_bundle_kill import Dying

Craft = Callable[[Recipe], Path]
WHEEL = "wheels/a.whl"


@pytest.fixture(autouse=True)
def _quick(quick: None) -> None:
    """Skip virtual environments."""


def _recipe(number: int, *, since: Recipe | None = None) -> Recipe:
    layer = f"layer {number} ".encode() * 2000
    files = {WHEEL: b"wheel " * 5000}
    return Recipe(f"1.{number}.0", number + 1, files=files, app_layer=layer, since=since)


@pytest.fixture
def site(craft: Craft, keys: Keys, home: Home) -> dict[str, Path]:
    """Return a jump host with releases 1.0.0 to 1.3.0; the last is a delta based on 1.2.0."""
    bundles = [craft(_recipe(n)) for n in range(3)]
    bundles.append(craft(_recipe(3, since=_recipe(2))))
    for path in bundles:
        run_import(path, keys.trust(), home)
    return {f"1.{n}.0": path for n, path in enumerate(bundles)}


def _versions(home: Home) -> list[str]:
    return sorted(path.name for path in home.releases.iterdir())


def _whole(home: Home, keys: Keys, *versions: str) -> None:
    for version in versions:
        installed.check(home.release(version), trust=keys.trust(), home=home)


def _used(home: Home) -> int:
    done = subprocess.run(
        ["du", "-s", "--block-size=1", home.root], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[0])


def _blobs(path: Path, keys: Keys) -> set[str]:
    parsed: Manifest = check(path, keys.trust()).manifest
    return {m.sha256 for m in parsed.contents if m.is_blob}


def test_dry_it_changes_nothing_and_says_what_would_go(
    site: dict[str, Path], home: Home, keys: Keys
) -> None:
    before = snapshot(home.root)
    found = prune.plan(home)
    assert snapshot(home.root) == before
    assert [r.version for r in found.kept] == ["1.2.0", "1.3.0"]
    assert [r.version for r in found.releases] == ["1.0.0", "1.1.0"]
    kept = _blobs(site["1.2.0"], keys) | _blobs(site["1.3.0"], keys)
    gone = (_blobs(site["1.0.0"], keys) | _blobs(site["1.1.0"], keys)) - kept
    assert {path.name for path in found.blobs} == gone
    # The app's layer, configuration and image manifest, of two releases.
    assert len(gone) == 6
    # Control: the pruned releases also have blobs that kept ones share.
    assert _blobs(site["1.0.0"], keys) & kept


def test_what_it_says_is_what_it_frees(site: dict[str, Path], home: Home, keys: Keys) -> None:
    used, records = _used(home), everything(home.accepted)
    planned = prune.plan(home)
    done = prune.apply(home)
    assert done == planned
    # The directory `releases` itself may shrink by a block.
    assert abs(used - _used(home) - planned.freed) <= 4096
    assert planned.freed > 2 * 16_000
    assert _versions(home) == ["1.2.0", "1.3.0"]
    _whole(home, keys, "1.2.0", "1.3.0")
    assert not any(path.exists() for path in done.blobs)
    # Records stay, and with them the protection against old bundles.
    assert everything(home.accepted) == records
    assert run_import(site["1.0.0"], keys.trust(), home).restored
    assert str(home.current.readlink()) == "releases/1.3.0"
    prune.apply(home)
    assert everything(home.accepted) == records
    again = prune.apply(home)
    assert (again.releases, again.blobs, again.freed) == ((), (), 0)


def test_a_file_that_a_kept_release_shares_frees_nothing(
    site: dict[str, Path], craft: Craft, home: Home, keys: Keys
) -> None:
    run_import(craft(_recipe(4)), keys.trust(), home)
    run_import(craft(_recipe(5)), keys.trust(), home)
    shared = home.release("1.2.0") / WHEEL
    assert shared.samefile(home.release("1.3.0") / WHEEL)
    used = _used(home)
    found = prune.apply(home, also=["1.3.0"])
    assert "1.2.0" in [record.version for record in found.releases]
    assert abs(used - _used(home) - found.freed) <= 4096
    assert _versions(home) == ["1.3.0", "1.4.0", "1.5.0"]
    _whole(home, keys, "1.3.0", "1.4.0", "1.5.0")


def test_what_a_kept_delta_left_out_stays(
    site: dict[str, Path], craft: Craft, home: Home, keys: Keys
) -> None:
    """The delta's app is entirely the pruned base's."""
    same = _recipe(4, since=_recipe(3))
    same.app_layer = _recipe(3).app_layer
    for recipe in (same, _recipe(5)):
        run_import(craft(recipe), keys.trust(), home)
    prune.apply(home)
    assert _versions(home) == ["1.4.0", "1.5.0"]
    _whole(home, keys, "1.4.0", "1.5.0")


@pytest.mark.parametrize(("keep", "expected"), [(1, 2), (2, 2), (3, 3), (9, 4)])
def test_never_fewer_than_two(keep: int, expected: int, site: dict[str, Path], home: Home) -> None:
    assert len(prune.plan(home, keep=keep).kept) == expected


def test_current_and_the_one_before_it_stay(site: dict[str, Path], home: Home, keys: Keys) -> None:
    """An import killed before its last step leaves `current` on an older release."""
    home.current.unlink()
    home.current.symlink_to("releases/1.1.0")
    assert [r.version for r in prune.apply(home).kept] == ["1.0.0", "1.1.0", "1.2.0", "1.3.0"]
    home.current.unlink()
    home.current.symlink_to("releases/1.0.0")
    prune.apply(home, keep=1)
    assert _versions(home) == ["1.0.0", "1.2.0", "1.3.0"]
    _whole(home, keys, "1.0.0", "1.2.0", "1.3.0")


def test_a_delta_on_a_pruned_base_is_refused_with_the_reason(
    site: dict[str, Path], craft: Craft, home: Home, keys: Keys
) -> None:
    late = craft(_recipe(4, since=_recipe(0)))
    prune.apply(home)
    error = refused_unchanged(late, keys, home)
    assert error.kind is Kind.NEEDS_BASE
    assert "1.0.0 (serial 1) was imported here, but its directory was pruned" in error.what
    # The base is older than the accepted release, so the message does not ask for it.
    assert "import airlift-1.4.0-amd64.tar, which carries everything" in error.fix
    assert "airlift-1.0.0-amd64.tar" not in error.fix
    # A delta on a kept base is accepted.
    run_import(craft(_recipe(4, since=_recipe(3))), keys.trust(), home)
    _whole(home, keys, "1.4.0")


def test_a_prune_between_the_check_and_the_import_is_noticed(
    site: dict[str, Path], craft: Craft, home: Home, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = craft(_recipe(4, since=_recipe(0)))
    contents = bases.check_contents

    def hash_and_prune(*args: object) -> None:
        contents(*args)  # type: ignore[arg-type]
        prune.apply(home)

    monkeypatch.setattr(bases, "check_contents", hash_and_prune)
    with pytest.raises(AirliftError) as caught:
        run_import(late, keys.trust(), home)
    assert caught.value.kind is Kind.NEEDS_BASE
    assert _versions(home) == ["1.2.0", "1.3.0"]


@pytest.mark.parametrize("damage", ["empty", "cut", "another"])
def test_nothing_goes_if_a_kept_release_is_unclear(
    damage: str, site: dict[str, Path], home: Home
) -> None:
    path = home.release("1.2.0") / "manifest.json"
    if damage == "empty":
        shutil.rmtree(path.parent)
        path.parent.mkdir()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.write_bytes((home.release("1.1.0") / "manifest.json").read_bytes())
    before = everything(home.root)
    with pytest.raises(AirliftError) as caught:
        prune.apply(home)
    assert caught.value.kind is Kind.RELEASE_ALTERED
    # It is not the newest release, so no import restores it.
    assert "restore this directory" in caught.value.fix
    after = everything(home.root)
    assert {k: v for k, v in before.items() if k != "store/lock"} == {
        k: v for k, v in after.items() if k != "store/lock"
    }


def test_an_unfinished_import_is_finished_first(
    site: dict[str, Path], home: Home, keys: Keys
) -> None:
    """The import was killed after acceptance, before its directory was in place."""
    shutil.rmtree(home.release("1.3.0"))
    home.current.unlink()
    home.current.symlink_to("releases/1.2.0")
    with pytest.raises(AirliftError) as caught:
        prune.apply(home)
    assert "import the bundle of release 1.3.0 again" in caught.value.fix
    run_import(site["1.3.0"], keys.trust(), home)
    prune.apply(home)
    _whole(home, keys, "1.2.0", "1.3.0")


def test_a_record_without_a_release_counts_for_nothing(
    site: dict[str, Path], home: Home, keys: Keys
) -> None:
    """The release was pruned, or another import overtook this one."""
    shutil.rmtree(home.release("1.2.0"))
    with pytest.raises(AirliftError) as caught:
        prune.plan(home, also=["1.2.0"])
    assert caught.value.kind is Kind.USAGE
    assert caught.value.what == "release 1.2.0 was pruned here"
    assert "1.2.0" not in caught.value.fix
    assert [record.version for record in prune.apply(home).kept] == ["1.1.0", "1.3.0"]
    _whole(home, keys, "1.1.0", "1.3.0")
    assert [record.version for record in prune.apply(home, keep=3).kept] == ["1.1.0", "1.3.0"]


def test_what_a_killed_import_left_goes(site: dict[str, Path], home: Home, keys: Keys) -> None:
    staged = home.incoming / ("0" * 64)
    replaced = home.releases / ".replaced-1.3.0"
    for folder in (staged / "blobs", replaced):
        folder.mkdir(parents=True)
        (folder / "x").write_bytes(b"x" * 50_000)
    only = home.releases / ".replaced-1.1.0"
    home.release("1.1.0").rename(only)
    before = _used(home)
    found = prune.apply(home)
    assert set(found.leftovers) == {staged, replaced}
    assert not staged.exists()
    assert not replaced.exists()
    assert abs(before - _used(home) - found.freed) <= 4096
    # If the complete directory is not in place, this is the only copy.
    assert found.unknown == (only,)
    assert only.is_dir()
    _whole(home, keys, "1.2.0", "1.3.0")


def test_what_it_does_not_know_stays(site: dict[str, Path], home: Home) -> None:
    strange = home.releases / "by-hand"
    strange.mkdir()
    (strange / "x").write_text("x")
    found = prune.apply(home)
    assert found.unknown == (strange,)
    assert (strange / "x").read_text() == "x"


def test_not_while_an_import_runs(site: dict[str, Path], home: Home) -> None:
    with home.lock(), pytest.raises(AirliftError) as caught:
        prune.apply(home)
    assert caught.value.kind is Kind.LOCKED
    assert len(_versions(home)) == 4


def _killed_at(step: int, home: Home) -> bool:
    """Prune in a child killed at its n-th step; return whether it was killed."""
    child = os.fork()
    if child == 0:
        Dying.left = step
        owners = ((os, "rename"), (os, "unlink"), (os, "rmdir"), (os, "fsync"), (Path, "rename"))
        for owner, name in owners:
            setattr(owner, name, Dying.wrap(getattr(owner, name)))
        code = 1
        with contextlib.suppress(BaseException):
            prune.apply(home)
            code = 0
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
    else:
        assert status == 0
    return os.WIFSIGNALED(status)


def test_killed_anywhere_the_store_is_valid(
    site: dict[str, Path], home: Home, keys: Keys, tmp_path: Path
) -> None:
    step, deaths, seen = 1, 0, set()
    while True:
        copy = Home(tmp_path / f"home-{step}")
        shutil.copytree(home.root, copy.root, symlinks=True)
        died = _killed_at(step, copy)
        deaths += died
        # Each release that is present is complete, and the current one is usable.
        _whole(copy, keys, *(v for v in _versions(copy) if not v.startswith(".")))
        assert copy.current.resolve().name == "1.3.0"
        seen.add((len(_versions(copy)), len(list(copy.blobs.iterdir()))))
        prune.apply(copy)
        assert _versions(copy) == ["1.2.0", "1.3.0"]
        assert {path.name for path in copy.blobs.iterdir()} == (
            _blobs(site["1.2.0"], keys) | _blobs(site["1.3.0"], keys)
        )
        shutil.rmtree(copy.root)
        if not died:
            break
        step += 1 if SOAK else 3
    assert deaths > 12
    # Kills came with all releases present, with some, and during the removal of blobs.
    assert len(seen) > 4


def test_the_command(
    site: dict[str, Path], home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["prune", "--home", str(home.root)]
    assert main(["prune", "--home", str(tmp_path / "none")]) == Kind.HOME.exit_code
    assert not (tmp_path / "none").exists()
    assert main([*command, "--keep-release", "9.9.9"]) == Kind.USAGE.exit_code
    assert "never accepted" in capsys.readouterr().err
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "release 1.0.0  serial 1: would go" in text
    assert "Dry run: nothing was removed" in text
    assert len(_versions(home)) == 4
    assert main([*command, "--keep", "3", "--apply", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["applied"], found["releases"]) == (True, ["1.0.0"])
    assert found["kept"] == ["1.1.0", "1.2.0", "1.3.0"]
    assert found["freed_bytes"] > 16_000
    assert _versions(home) == ["1.1.0", "1.2.0", "1.3.0"]
    home.current.unlink()
    assert main(command) == Kind.HOME.exit_code
    assert "names no release" in capsys.readouterr().err
