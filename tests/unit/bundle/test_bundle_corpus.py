"""Each attack in `corpus/` is refused in one sentence, and changes nothing.

Add new attacks as lines there; the independent verifier must refuse them, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundle.cli.main import main
from bundle.errors import AirliftError
from bundle.jumphost import installed, venv
from bundle.jumphost.store import Home
from tests.unit.bundle import mutations, stranger
from tests.unit.bundle.bundlekit import (
    IDENTITY,
    Keys,
    Recipe,
    everything,
    fake_venv,
    refused,
    run_import,
)

RECIPES: dict[str, dict[str, Any]] = {
    f"{file.stem}: {name}": recipe
    for file in sorted(mutations.CORPUS.glob("*.json"))
    for name, recipe in mutations.load(file.stem).items()
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Home:
    """Return a jump host with an older release, which then gets one bad bundle after another."""
    folder = tmp_path_factory.mktemp("site")
    home = Home(folder / "airlift")
    older = Recipe("0.9.0", 1).make(folder / "older.tar", keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(venv, "make", fake_venv)
        run_import(older, keys.trust(), home)
    return home


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> bytes:
    # The recipes for manifests replace this serial.
    return Recipe(serial=7).make(tmp_path_factory.mktemp("good") / "good.tar", keys).read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "airlift-1.0.0-amd64.tar"


def _state(home: Home) -> dict[str, bytes]:
    found = everything(home.root)
    found.pop("store/lock")
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_an_attack_is_refused_by_verify_and_import(
    name: str, good: bytes, scratch: Path, site: Home, keys: Keys
) -> None:
    recipe = RECIPES[name]
    scratch.write_bytes(mutations.apply(recipe, good, keys))
    assert scratch.read_bytes() != good
    error = refused(scratch, keys.trust())
    assert (error.kind.label, recipe["words"] in error.what) == (recipe["kind"], True), str(error)
    before = _state(site)
    with pytest.raises(AirliftError) as caught:
        run_import(scratch, keys.trust(), site)
    assert caught.value.what == error.what
    assert _state(site) == before
    assert list(site.incoming.iterdir()) == []
    # The independent verifier must refuse it, too.
    with pytest.raises(stranger.RefusedError):
        stranger.verify(str(scratch), str(keys.signers()), IDENTITY)


def test_after_all_that_the_old_release_is_whole(site: Home, keys: Keys) -> None:
    installed.check(site.current, trust=keys.trust(), home=site)
    assert not list(site.root.rglob("*.part"))


def test_the_recipes_alone_do_no_harm(good: bytes, scratch: Path, keys: Keys) -> None:
    """Negative control: splitting and joining without a change leaves the bundle valid."""
    steps = [["manifest", '"serial": 7,', '"serial": 8,'], ["sign", "release", "file", 2]]
    scratch.write_bytes(mutations.apply({"steps": []}, good, keys))
    assert scratch.read_bytes() == good
    scratch.write_bytes(mutations.apply({"steps": steps}, good, keys))
    assert refused(scratch, keys.trust()).kind.label == "bad-signature"
    scratch.write_bytes(mutations.apply({"steps": steps[:1]}, good, keys))
    signers = str(keys.signers())
    assert stranger.verify(str(scratch), signers, IDENTITY)["serial"] == 8
    command = ["verify", str(scratch), "--allowed-signers", signers, "--home", "/nonexistent"]
    assert main(command) == 0


def test_a_refusal_in_json_is_one_sentence(
    good: bytes, scratch: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters in a hostile archive's names reach the terminal only escaped."""
    recipe = RECIPES["archive: inserted: name of an escape sequence"]
    scratch.write_bytes(mutations.apply(recipe, good, keys))
    trust = ["--allowed-signers", str(keys.signers()), "--home", "/nonexistent"]
    main(["verify", str(scratch), "--json", *trust])
    said = capsys.readouterr()
    assert json.loads(said.out)["error"]["what"].count("\n") == 0
    assert "\033" not in said.out + said.err


def test_good_over_another_bundles_manifest(
    scratch: Path, good: bytes, tmp_path: Path, keys: Keys
) -> None:
    """Manifest and signature of one release, all other members of another."""
    other = Recipe("1.1.0", 2, app_layer=b"other").make(tmp_path / "other.tar", keys)
    attack, donor = (mutations.Attack(raw, keys) for raw in (good, other.read_bytes()))
    attack.parts[:2] = donor.parts[:2]
    scratch.write_bytes(attack.made())
    error = refused(scratch, keys.trust())
    assert error.kind.label == "structure"
    # Its signature alone does not match.
    attack = mutations.Attack(good, keys)
    attack.parts[1] = donor.parts[1]
    scratch.write_bytes(attack.made())
    assert refused(scratch, keys.trust()).kind.label == "bad-signature"


UNTRUSTED: dict[str, tuple[list[dict[str, str]], int]] = {
    "expired": ([{"name": "release", "options": 'valid-before="20200101"'}], 1),
    "expired: not yet valid": ([{"name": "release", "options": 'valid-after="20990101"'}], 1),
    "unknown-signer": ([{"name": "other"}], 1),
    "unknown-signer: for git": ([{"name": "release", "options": 'namespaces="git"'}], 1),
    "too-few-signers": ([{"name": "release"}, {"name": "other"}], 2),
}


@pytest.mark.parametrize("name", UNTRUSTED)
def test_signers_who_may_not(name: str, good: bytes, scratch: Path, site: Home, keys: Keys) -> None:
    scratch.write_bytes(good)
    lines, required = UNTRUSTED[name]
    trust = keys.trust(*(keys.line(**line) for line in lines), required=required)
    before = _state(site)
    error = refused(scratch, trust)
    assert error.kind.label == name.partition(":")[0]
    with pytest.raises(AirliftError) as caught:
        run_import(scratch, trust, site)
    assert caught.value.kind is error.kind
    assert _state(site) == before
