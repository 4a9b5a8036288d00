"""Deltas are smaller, signed alike, and refused if anything would be missing."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.builder import build, delta_bases
from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.jumphost import installed, venv
from bundle.jumphost.store import Home
from bundle.trust import sshsig
from tests.unit.bundle.bundlekit import (
    Keys,
    Recipe,
    arguments,
    assert_finished,
    check,
    everything,
    run_import,
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

Craft = Callable[[Recipe], Path]


@pytest.fixture(autouse=True)
def _quick(quick: None) -> None:
    """Skip virtual environments."""


def _left_out_blob(dist: Dist, keys: Keys, home: Home) -> Path:
    """Return the largest blob that the delta expects in the store."""
    return home.blob(max(manifest_of(dist.delta, keys).left_out, key=lambda b: b.size).sha256)


def test_a_delta_is_small_and_describes_the_whole_release(dist: Dist, keys: Keys) -> None:
    assert dist.delta.name == "airlift-1.1.0-since-1.0.0-amd64.tar"
    assert dist.full.stat().st_size > 2 << 20
    assert dist.delta.stat().st_size < dist.full.stat().st_size / 3
    base, full, delta = (manifest_of(p, keys) for p in (dist.base, dist.full, dist.delta))
    assert delta.data["components"] == full.data["components"]
    assert {m.path for m in delta.contents} == {m.path for m in full.members}
    # The delta carries the app's new layer, configuration and image manifest.
    assert sum(1 for m in delta.members if m.is_blob) == 3
    assert {m.sha256 for m in delta.left_out} < {m.sha256 for m in base.members}
    assert delta.data["bases"] == [
        {"version": "1.0.0", "serial": 1, "release_sha256": base.release_sha256}
    ]
    assert delta.release_sha256 == full.release_sha256 != base.release_sha256
    # The release's hash is that of the full bundle's manifest.
    assert full.release_sha256 == check(dist.full, keys.trust()).sha256
    assert (full.data["bases"], full.data["left_out"]) == ([], [])


def test_sums_are_good_for_all_bundles_of_the_folder(dist: Dist, keys: Keys) -> None:
    folder = dist.base.parent
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    names = sorted(p.name for p in (dist.base, dist.full, dist.delta))
    assert done.stdout.splitlines() == [f"{name}: OK" for name in names]
    signature = (folder / "SHA256SUMS.sig").read_bytes()
    sshsig.verify((folder / "SHA256SUMS").read_bytes(), [("x", signature)], keys.trust())


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_delta_alone_says_what_it_is(
    command: str, dist: Dist, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(command, dist.delta, keys, home)) == 0
    parsed = manifest_of(dist.delta, keys)
    total, carried = len(parsed.contents), len(parsed.members)
    wanted = f"carries 3 of 7 blobs and {carried - 3} of {total - 7} other members; needs a jump "
    assert f"{wanted}host that has release 1.0.0 (serial 1)" in capsys.readouterr().out
    assert main([*arguments(command, dist.delta, keys, home), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["delta"]
    assert (found["blobs_carried"], found["blobs"]) == (3, 7)
    assert (found["members_carried"], found["members"]) == (carried, total)
    assert found["bytes_left_out"] > 2 << 20
    assert [base["version"] for base in found["bases"]] == ["1.0.0"]
    assert main([*arguments(command, dist.full, keys, home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["delta"] is None
    assert main(arguments(command, dist.full, keys, home)) == 0
    assert "delta" not in capsys.readouterr().out
    assert not home.root.exists()


def test_a_delta_on_its_base_gives_what_the_full_bundle_gives(
    dist: Dist, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    homes = {}
    for kind in ("full", "delta"):
        home = homes[kind] = Home(tmp_path / kind)
        run_import(dist.base, keys.trust(), home)
        run_import(dist.named(kind), keys.trust(), home)
        assert_finished(home, dist.named(kind), keys.trust(), dist.base)
    found = [everything(home.release("1.1.0")) for home in homes.values()]
    for one in found:
        # Manifests differ by the kind of bundle, and the environment records its manifest.
        for name in ("manifest.json", "manifest.sig", f"venv/{venv.MARKER}"):
            one.pop(name)
    assert found[0] == found[1]
    assert everything(homes["full"].blobs) == everything(homes["delta"].blobs)
    home = homes["delta"]
    assert run_import(dist.delta, keys.trust(), home).already is True
    # An imported delta is checked as a whole, without further files.
    assert main([*arguments("verify", home.current, keys, home), "--json"]) == 0
    members = len(manifest_of(dist.full, keys).members)
    assert json.loads(capsys.readouterr().out)["members"] == members


def test_without_the_base_nothing_is_changed(dist: Dist, keys: Keys, home: Home) -> None:
    home.root.parent.mkdir()
    error = refused_unchanged(dist.delta, keys, home)
    assert error.kind is Kind.NEEDS_BASE
    count = len(manifest_of(dist.delta, keys).left_out)
    assert f"{count} of the {count} members" in error.what
    assert "3.2 MB" in error.what
    assert "release 1.0.0 (serial 1)" in error.what
    assert "import airlift-1.0.0-amd64.tar && this command again" in error.fix
    assert not home.root.exists()
    # The fix in the message works.
    run_import(dist.base, keys.trust(), home)
    run_import(dist.delta, keys.trust(), home)
    assert_finished(home, dist.delta, keys.trust(), dist.base)


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_one_blob_of_the_base_is_missing(damage: str, dist: Dist, keys: Keys, home: Home) -> None:
    run_import(dist.base, keys.trust(), home)
    blob = _left_out_blob(dist, keys, home)
    if damage == "gone":
        blob.unlink()
    else:
        blob.write_bytes(blob.read_bytes()[:-1])
    error = refused_unchanged(dist.delta, keys, home)
    assert (error.kind, "and 1 of the " in error.what) == (Kind.NEEDS_BASE, True)
    assert "pruned" not in error.what
    run_import(dist.base, keys.trust(), home)
    run_import(dist.delta, keys.trust(), home)
    assert_finished(home, dist.delta, keys.trust(), dist.base)


@pytest.mark.parametrize("repair", ["base", "full"])
def test_a_blob_that_was_damaged_on_disk_is_not_relied_upon(
    repair: str, dist: Dist, keys: Keys, home: Home
) -> None:
    run_import(dist.base, keys.trust(), home)
    blob = _left_out_blob(dist, keys, home)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    error = refused_unchanged(dist.delta, keys, home)
    assert error.kind is Kind.RELEASE_ALTERED
    assert f"{blob.name} was altered" in error.what
    assert error.where == str(blob)
    assert "remove it" in error.fix
    assert dist.base.name in error.fix
    assert dist.full.name in error.fix
    # Both fixes in the message work.
    blob.unlink()
    run_import(dist.named(repair), keys.trust(), home)
    run_import(dist.delta, keys.trust(), home)
    assert_finished(home, dist.delta, keys.trust(), dist.base)


def test_what_is_left_out_is_hashed_once(
    dist: Dist, keys: Keys, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_import(dist.base, keys.trust(), home)
    hashed: list[Path] = []
    compare = installed._compare

    def counted(path: Path, *rest: Any) -> None:
        hashed.append(path)
        compare(path, *rest)

    monkeypatch.setattr(installed, "_compare", counted)
    run_import(dist.delta, keys.trust(), home)
    left_out = manifest_of(dist.delta, keys).left_out
    base = home.release("1.0.0")
    assert sorted(hashed) == sorted(
        home.blob(m.sha256) if m.is_blob else base / m.path for m in left_out
    )
    hashed.clear()
    assert run_import(dist.delta, keys.trust(), home).already is True
    assert hashed == []


def test_a_blob_lost_later_is_missed_and_the_full_bundle_brings_it(
    dist: Dist, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    run_import(dist.base, keys.trust(), home)
    run_import(dist.delta, keys.trust(), home)
    blob = _left_out_blob(dist, keys, home)
    blob.unlink()
    assert main(arguments("verify", home.current, keys, home)) == Kind.RELEASE_ALTERED.exit_code
    said = capsys.readouterr().err
    assert blob.name in said
    assert dist.full.name in said
    # The base is older than the accepted release, so the message does not ask for it.
    error = refused_unchanged(dist.delta, keys, home)
    assert error.kind is Kind.NEEDS_BASE
    assert dist.full.name in error.fix
    assert dist.base.name not in error.fix
    assert run_import(dist.full, keys.trust(), home).already is False
    assert_finished(home, dist.full, keys.trust(), dist.base)


def test_the_guard_against_older_and_other_releases_stays(
    dist: Dist, craft: Craft, keys: Keys, home: Home
) -> None:
    run_import(dist.base, keys.trust(), home)
    run_import(dist.delta, keys.trust(), home)
    assert [record.version for record in home.acceptances()] == ["1.0.0", "1.1.0"]
    other = craft(Recipe("1.1.0", 2, app_layer=b"other", since=Recipe()))
    assert refused_unchanged(other, keys, home).kind is Kind.CONFLICT
    run_import(craft(Recipe("2.0.0", 5)), keys.trust(), home)
    older = craft(Recipe("1.5.0", 4, since=Recipe("2.0.0", 3)))
    assert refused_unchanged(older, keys, home).kind is Kind.OLDER


def test_a_release_that_came_as_a_delta_is_repaired_by_its_full_bundle(
    dist: Dist, craft: Craft, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """`verify` names this release, although a newer one was accepted since."""
    run_import(dist.base, keys.trust(), home)
    run_import(dist.delta, keys.trust(), home)
    newest = craft(Recipe("2.0.0", 5))
    run_import(newest, keys.trust(), home)
    damaged = home.release("1.1.0")
    blob = next(home.blobs.iterdir())
    blob.write_bytes(b"")
    (damaged / "ansible.cfg").unlink()
    words = ["verify", str(damaged), "--home", str(home.root), "--json"]
    assert main(words) == Kind.RELEASE_ALTERED.exit_code
    assert main(["import", str(dist.full), "--home", str(home.root)]) == 0
    capsys.readouterr()
    assert main(words) == 0, capsys.readouterr().out
    assert str(home.current.readlink()) == "releases/2.0.0"


def test_a_delta_of_a_delta_and_of_several_bases(
    dist: Dist, tree: Path, tmp_path: Path, keys: Keys, home: Home
) -> None:
    def make(*since: Path) -> build.Built:
        wanted = options(tree, tmp_path / "out", keys, version="1.2.0", serial=3, since=since)
        return run_build(wanted, Suppliers(NEW_LAYER))

    # A site with the delta has all that its base has, so all blobs are omitted.
    built = make(dist.delta)
    assert built.path.name == "airlift-1.2.0-since-1.1.0-amd64.tar"
    assert [m for m in built.manifest.members if m.is_blob] == []
    assert len([m for m in built.manifest.left_out if m.is_blob]) == 7
    # The order of bases is irrelevant, and a blob comes from the newest base that has it.
    assert make(dist.base, dist.delta).sha256 == make(dist.delta, dist.base).sha256 == built.sha256
    # Import the chain on one jump host.
    for path in (dist.base, dist.delta, built.path):
        run_import(path, keys.trust(), home)
    assert str(home.current.readlink()) == "releases/1.2.0"
    assert {p.name for p in home.blobs.iterdir()} >= {
        b.sha256 for b in built.manifest.left_out if b.is_blob
    }


def test_two_bases_are_both_named(
    dist: Dist, tree: Path, tmp_path: Path, keys: Keys, home: Home
) -> None:
    """The release returns to an older layer, so the app's blobs are only in the first base."""
    since = (dist.base, dist.full)
    wanted = options(tree, tmp_path / "out", keys, version="1.2.0", serial=3, since=since)
    built = run_build(wanted, Suppliers())
    assert built.path.name == "airlift-1.2.0-since-1.1.0-amd64.tar"
    assert [base.version for base in built.manifest.bases] == ["1.1.0", "1.0.0"]
    home.root.parent.mkdir()
    error = refused_unchanged(built.path, keys, home)
    assert "release 1.1.0 (serial 2) and 1.0.0 (serial 1)" in error.what
    assert re.search(r"import airlift-1\.0\.0\S+ && .* import airlift-1\.1\.0", error.fix)
    # With one base imported, in any form, only the rest is required.
    run_import(dist.full, keys.trust(), home)
    error = refused_unchanged(built.path, keys, home)
    assert "and 3 of the " in error.what
    assert "in the bundle of release 1.0.0 (serial 1)" in error.what
    assert error.fix.endswith("import airlift-1.2.0-amd64.tar, which carries everything")


@pytest.mark.parametrize(
    ("recipe", "phrase"),
    [
        (Recipe(edit=lambda d: d.update(image_source="registry")), "keeps its image source"),
        (Recipe(edit=lambda d: d.update(architecture="arm64")), "for arm64"),
        (Recipe("1.1.0", 1), "not older"),
        (Recipe("0.9.0", 2), "not older"),
        (Recipe("0.9.0", 3), "not older"),
        (Recipe(edit=lambda d: d.update(extra=1)), "unknown key"),
        (Recipe(edit=lambda d: d.pop("left_out")), "lacks the key"),
    ],
)
@pytest.mark.parametrize("source", ["auto", "debian"])
def test_bases_that_cannot_be_one(  # noqa: PLR0917 - fixtures
    source: str, recipe: Recipe, phrase: str, craft: Craft, tree: Path, tmp_path: Path, keys: Keys
) -> None:
    base = craft(recipe)
    out = tmp_path / "out"
    wanted = options(tree, out, keys, version="1.1.0", since=(base,), source=source)
    with pytest.raises(AirliftError) as caught:
        run_build(wanted, Suppliers())
    assert (caught.value.kind, phrase in caught.value.what) == (Kind.BUILD_INPUT, True)
    assert str(base) in caught.value.where
    assert caught.value.fix
    assert not out.exists() or list(out.iterdir()) == []


def test_bases_that_are_useless_or_given_twice(
    dist: Dist, craft: Craft, tree: Path, tmp_path: Path, keys: Keys
) -> None:
    for since, phrase in [
        ((tmp_path / "none.tar",), "cannot open the bundle"),
        ((dist.base, dist.base), "the same version or serial"),
        ((dist.base, craft(Recipe("0.9.0", 1))), "the same version or serial"),
    ]:
        wanted = options(tree, tmp_path / "out", keys, version="1.1.0", since=since)
        with pytest.raises(AirliftError) as caught:
            run_build(wanted, Suppliers())
        assert (caught.value.kind, phrase in caught.value.what) == (Kind.BUILD_INPUT, True)
    base = delta_bases.Base(dist.base, "1.0.0", 1, "0" * 64, "amd64", "debian", {"wheels/x": "1"})
    with pytest.raises(AirliftError, match="would carry everything"):
        delta_bases.left_out(delta_bases.Bases((base,)), {"blobs/sha256/x": "x", "wheels/x": "2"})


def test_help_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["build", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--since BUNDLE [BUNDLE ...]" in text
    assert "make a delta" in text
    assert "--receipt-signers FILE" in text
