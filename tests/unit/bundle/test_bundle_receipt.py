"""A receipt lists a site's files; only a trusted receipt makes a bundle smaller."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.builder import build, delta_bases
from bundle.builder.release import Release
from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.format.manifest import encode
from bundle.jumphost import receipt, venv
from bundle.jumphost.store import Home
from bundle.trust import sshsig
from tests.unit.bundle.bundlekit import Keys, Recipe, assert_finished, fake_venv, run_import
from tests.unit.bundle.deltakit import (
    NEW_LAYER,
    Dist,
    Suppliers,
    manifest_of,
    options,
    run_build,
    snapshot,
)

Craft = Callable[[Recipe], Path]
Make = Callable[..., build.Built]


WANTED = Release("1.1.0", 2, {}, {}, "", "", ())


@pytest.fixture(autouse=True)
def _quick(quick: None) -> None:
    """Skip virtual environments."""


@pytest.fixture
def signers(keys: Keys) -> Path:
    return keys.signers(keys.line("jump", "jump@acme", f'namespaces="{receipt.NAMESPACE}"'))


@pytest.fixture
def make(tree: Path, tmp_path: Path, keys: Keys, signers: Path) -> Make:
    """Build release 1.1.0 on some bases."""

    def run(*since: Path, suppliers: Suppliers | None = None, **more: Any) -> build.Built:
        more = {"version": "1.1.0", "receipt_signers": signers} | more
        wanted = options(tree, tmp_path / "out", keys, since=since, **more)
        return run_build(wanted, suppliers or Suppliers(NEW_LAYER))

    return run


@pytest.fixture(scope="module")
def taken(dist: Dist, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the receipt of a site with release 1.0.0."""
    home = Home(tmp_path_factory.mktemp("site"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(venv, "make", fake_venv)
        run_import(dist.base, keys.trust(), home)
    return _taken(home)


def _write(home: Home, path: Path, keys: Keys, *, contents: bool = False) -> list[str]:
    taken, notes = receipt.take(home, contents=contents, progress=lambda _: None)
    receipt.write(taken, path, keys.key("jump"))
    return notes


def _taken(home: Home) -> dict[str, Any]:
    return receipt.take(home, contents=False, progress=lambda _: None)[0]


def test_a_delta_by_receipt_is_the_delta_by_bundle(  # noqa: PLR0917 - fixtures
    dist: Dist, keys: Keys, home: Home, signers: Path, make: Make, tmp_path: Path
) -> None:
    run_import(dist.base, keys.trust(), home)
    path = tmp_path / "acme.json"
    before = snapshot(home.root)
    assert _write(home, path, keys, contents=True) == []
    assert snapshot(home.root) == before
    # The system's ssh-keygen accepts it, too.
    command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", "jump@acme"]
    command += ["-n", "airlift-receipt", "-s", f"{path}.sig"]
    subprocess.run(command, input=path.read_bytes(), check=True, capture_output=True)
    built = make(path)
    assert built.path.read_bytes() == dist.delta.read_bytes()
    (said,) = delta_bases.load((path,), WANTED, "amd64", signers).lines
    assert re.fullmatch(rf"{path}: \S+ at 20\S+Z, signed by jump@acme with ssh-ed25519 .*", said)
    run_import(built.path, keys.trust(), home)
    assert_finished(home, built.path, keys.trust(), dist.base)


def test_what_the_site_lost_travels_again(
    dist: Dist, keys: Keys, home: Home, make: Make, tmp_path: Path
) -> None:
    run_import(dist.base, keys.trust(), home)
    left_out = manifest_of(dist.delta, keys).left_out
    blob = max((m for m in left_out if m.is_blob), key=lambda m: m.size)
    wheel = next(m for m in left_out if m.path.startswith("wheels/"))
    debs = [m for m in left_out if m.path.endswith(".deb")]
    home.blob(blob.sha256).unlink()
    (home.release("1.0.0") / wheel.path).write_bytes(b"short")
    elsewhere = home.release("1.0.0") / debs[0].path
    elsewhere.unlink()
    # The right length, but not a file.
    elsewhere.symlink_to("x" * debs[0].size)
    (home.release("1.0.0") / debs[1].path).write_bytes(b"x" * debs[1].size)
    notes = _write(home, tmp_path / "quick.json", keys)
    assert len(notes) == 3
    assert all("; the next bundle carries it" in note for note in notes)
    lost = {blob.path, wheel.path, debs[0].path}
    built = make(tmp_path / "quick.json")
    assert {m.path for m in left_out} - {m.path for m in built.manifest.left_out} == lost
    # A file of the right length is only detected by hashing it.
    notes = _write(home, tmp_path / "hashed.json", keys, contents=True)
    assert any("was altered" in note and debs[1].path in note for note in notes)
    built = make(tmp_path / "hashed.json")
    lost |= {debs[1].path}
    assert {m.path for m in left_out} - {m.path for m in built.manifest.left_out} == lost


def test_a_release_that_is_gone_or_another_is_not_listed(
    dist: Dist, craft: Craft, keys: Keys, home: Home
) -> None:
    run_import(dist.base, keys.trust(), home)
    run_import(dist.delta, keys.trust(), home)
    assert [r["version"] for r in _taken(home)["releases"]] == ["1.0.0", "1.1.0"]
    (home.release("1.1.0") / "manifest.json").write_bytes(
        (home.release("1.0.0") / "manifest.json").read_bytes()
    )
    home.release("1.0.0").rename(home.root / "away")
    with pytest.raises(AirliftError, match="no release was imported here"):
        _taken(home)
    run_import(craft(Recipe("1.2.0", 3)), keys.trust(), home)
    taken, notes = receipt.take(home, contents=False, progress=lambda _: None)
    assert [r["version"] for r in taken["releases"]] == ["1.2.0"]
    assert [note.partition(":")[0] for note in notes] == ["release 1.0.0", "release 1.1.0"]
    assert "directory is missing" in notes[0]
    assert "not the one that was accepted" in notes[1]


def _edit(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.update(changes)


def _edit_release(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["releases"][0].update(changes)


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], Kind, str]] = {
    "newer format": (_edit(format=2), Kind.BUILD_INPUT, "format 2, newer than this tool's 1"),
    "other product": (_edit(product="x"), Kind.BUILD_INPUT, "product"),
    "unknown key": (_edit(extra=1), Kind.BUILD_INPUT, "unknown key 'extra'"),
    "truth value": (_edit(hashed=1), Kind.BUILD_INPUT, "true or false"),
    "no release": (_edit(releases=[]), Kind.BUILD_INPUT, "names no release"),
    "other architecture": (_edit_release(architecture="arm64"), Kind.BUILD_INPUT, "for arm64"),
    "other source": (_edit_release(image_source="registry"), Kind.BUILD_INPUT, "keeps its image"),
    "as new": (_edit_release(version="1.0.1", serial=2), Kind.BUILD_INPUT, "not older than"),
    "newer": (_edit_release(version="2.0.0", serial=9), Kind.BUILD_INPUT, "not older than"),
    "climbing path": (
        lambda d: d["releases"][0]["members"][0].update(path="../x"),
        Kind.BUILD_INPUT,
        "not allowed",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_signed_receipts_that_cannot_be_used(
    name: str, taken: dict[str, Any], keys: Keys, make: Make, tmp_path: Path
) -> None:
    data = copy.deepcopy(taken)
    edit, kind, phrase = REFUSED[name]
    edit(data)
    receipt.write(data, tmp_path / "r.json", keys.key("jump"))
    with pytest.raises(AirliftError) as caught:
        make(tmp_path / "r.json")
    _one_sentence(caught.value, kind, phrase)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def _one_sentence(error: AirliftError, kind: Kind, phrase: str) -> None:
    assert (error.kind, phrase in error.what) == (kind, True), str(error)
    assert "\n" not in error.what
    assert error.where.startswith("--since ")
    assert error.fix


def test_receipts_of_nobody_who_is_trusted(
    taken: dict[str, Any], keys: Keys, make: Make, signers: Path, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    receipt.write(taken, path, keys.key("jump"))
    good, signature = path.read_bytes(), Path(f"{path}.sig").read_bytes()

    def refused(kind: Kind, phrase: str, **more: Any) -> None:
        with pytest.raises(AirliftError) as caught:
            make(path, **more)
        _one_sentence(caught.value, kind, phrase)

    refused(Kind.SIGNERS_FILE, "no list of signers of receipts", receipt_signers=None)
    path.write_bytes(good.replace(b'"serial": 1', b'"serial": 0'))
    refused(Kind.BAD_SIGNATURE, "was altered")
    path.write_bytes(good)
    Path(f"{path}.sig").unlink()
    refused(Kind.UNSIGNED, "r.json.sig cannot be read")
    Path(f"{path}.sig").write_bytes(b"x")
    refused(Kind.UNSIGNED, "not one OpenSSH signature")
    Path(f"{path}.sig").write_bytes(sshsig.sign(good, keys.key("jump")))
    refused(Kind.BAD_SIGNATURE, "of another file")
    receipt.write(json.loads(good), path, keys.key("stranger"))
    refused(Kind.UNKNOWN_SIGNER, "not in the list")
    # A key that may sign bundles may not sign receipts.
    receipt.write(json.loads(good), path, keys.key("jump"))
    assert Path(f"{path}.sig").read_bytes() == signature
    line = keys.line("jump", "jump@acme")
    refused(Kind.UNKNOWN_SIGNER, "not for airlift-receipt", receipt_signers=keys.signers(line))
    # A receipt's signature is not valid for a bundle.
    with pytest.raises(AirliftError) as caught:
        sshsig.verify(good, [("x", signature)], keys.trust(signers.read_text()))
    assert caught.value.kind is Kind.BAD_SIGNATURE
    make(path)


def _base(path: str, version: str, **members: str) -> delta_bases.Base:
    there = {name.replace("_", "/"): digest for name, digest in members.items()}
    serial = int(version.split(".")[1]) + 1
    return delta_bases.Base(Path(path), version, serial, version[2] * 64, "amd64", "debian", there)


def _left_out(
    *receipts: tuple[delta_bases.Base, ...], bundles: tuple[delta_bases.Base, ...] = ()
) -> dict[str, str]:
    entries = {name: name for name in ("blobs/a", "blobs/b", "wheels/a", "wheels/b")}
    found = delta_bases.left_out(delta_bases.Bases(bundles, receipts), entries)
    return {path: base.version for path, base in found.items()}


OLD = _base("x", "1.0.0", blobs_a="blobs/a", wheels_a="wheels/a")
NEW = _base("y", "1.1.0", blobs_a="blobs/a", blobs_b="blobs/b", wheels_a="wheels/a")


@pytest.mark.parametrize(
    ("receipts", "bundles", "expected"),
    [
        # One site: the union of its releases, with the newest named.
        ([(OLD, NEW)], (), {"blobs/a": "1.1.0", "blobs/b": "1.1.0", "wheels/a": "1.1.0"}),
        # Several sites: what all have. A file must be in one common release, a blob need not.
        ([(OLD, NEW), (OLD,)], (), {"blobs/a": "1.0.0", "wheels/a": "1.0.0"}),
        ([(NEW,), (OLD,)], (), {"blobs/a": "1.1.0"}),
        # Bundles: every site has all of them.
        ([], (OLD, NEW), {"blobs/a": "1.1.0", "blobs/b": "1.1.0", "wheels/a": "1.1.0"}),
        ([(OLD,)], (NEW,), {"blobs/a": "1.1.0", "blobs/b": "1.1.0", "wheels/a": "1.1.0"}),
        ([(NEW,), ()], (OLD,), {"blobs/a": "1.0.0", "wheels/a": "1.0.0"}),
    ],
)
def test_union_within_a_site_and_intersection_across_sites(
    receipts: list[tuple[delta_bases.Base, ...]],
    bundles: tuple[delta_bases.Base, ...],
    expected: dict[str, str],
) -> None:
    assert _left_out(*receipts, bundles=bundles) == expected


def test_another_content_under_the_same_path_is_not_left_out() -> None:
    assert _left_out((OLD, _base("y", "1.1.0", wheels_a="other"))) == {
        "blobs/a": "1.0.0",
        "wheels/a": "1.0.0",
    }
    with pytest.raises(AirliftError, match="would carry everything"):
        _left_out((OLD,), (_base("y", "1.1.0", blobs_b="blobs/b"),))


def test_one_delta_for_two_sites(dist: Dist, keys: Keys, tmp_path: Path, make: Make) -> None:
    """One site began with 1.0.0, the other with 1.1.0: they share blobs, but no release."""
    homes = [Home(tmp_path / name) for name in ("first", "second")]
    paths = [tmp_path / f"{home.root.name}.json" for home in homes]
    for home, bundle, path in zip(homes, (dist.base, dist.full), paths, strict=True):
        run_import(bundle, keys.trust(), home)
        _write(home, path, keys)
    built = make(*paths, version="1.2.0", serial=3)
    assert all(m.is_blob for m in built.manifest.left_out)
    assert len(built.manifest.left_out) == 4
    for home in homes:
        run_import(built.path, keys.trust(), home)
    # With a bundle that the second site lacks, the delta fits only the first site.
    built = make(*paths, dist.base, version="1.2.0", serial=3)
    assert any(m.path.startswith("wheels/") for m in built.manifest.left_out)
    other = Home(tmp_path / "third")
    run_import(dist.full, keys.trust(), other)
    with pytest.raises(AirliftError) as caught:
        run_import(built.path, keys.trust(), other)
    assert caught.value.kind is Kind.NEEDS_BASE


def test_two_releases_under_one_name_are_refused(  # noqa: PLR0917 - fixtures
    dist: Dist, craft: Craft, keys: Keys, taken: dict[str, Any], make: Make, tmp_path: Path
) -> None:
    receipt.write(taken, tmp_path / "r.json", keys.key("jump"))
    with pytest.raises(AirliftError, match="the same version or serial"):
        make(tmp_path / "r.json", craft(Recipe("1.0.0", 1)))
    # Receipt and bundle of the same release do not conflict.
    make(tmp_path / "r.json", dist.base)


def test_the_command(  # noqa: PLR0917 - fixtures
    dist: Dist,
    keys: Keys,
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "site.json"
    command = ["receipt", "--home", str(home.root), "-o", str(out)]
    monkeypatch.delenv("AIRLIFT_RECEIPT_KEY", raising=False)
    assert main([*command, "--key", str(keys.key("jump"))]) == Kind.HOME.exit_code
    run_import(dist.base, keys.trust(), home)
    assert main(command) == Kind.SIGNING.exit_code
    assert "ssh-keygen -t ed25519" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setenv("AIRLIFT_RECEIPT_KEY", str(keys.key("jump")))
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "release 1.0.0  serial 1, " in text
    assert f'namespaces="airlift-receipt" {sshsig.public_key(keys.key("jump"))}' in text
    assert main([*command, "--hash", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["hashed"], found["not_listed"]) == (True, [])
    assert found["releases"][0]["version"] == "1.0.0"
    assert encode(json.loads(out.read_bytes())) == out.read_bytes()
    assert sorted(p.name for p in tmp_path.glob("site*")) == ["site.json", "site.json.sig"]
    # A file that is no receipt is not overwritten.
    for other in (dist.base, home.current / "manifest.json"):
        before = other.read_bytes()
        assert main([*command[:-1], str(other)]) == Kind.OUTPUT.exit_code
        assert "it is no receipt" in capsys.readouterr().err
        assert other.read_bytes() == before
