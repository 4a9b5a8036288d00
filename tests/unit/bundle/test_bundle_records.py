"""Acceptance records: one per manifest, kept for ever; each release counts once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.cli.main import main
from bundle.errors import AirliftError
from bundle.jumphost import prune, receipt
from bundle.jumphost.store import Acceptance, Home
from tests.unit.bundle.bundlekit import Keys, Recipe, check, run_import
from tests.unit.bundle.deltakit import Dist

Craft = Callable[[Recipe], Path]
pytestmark = pytest.mark.usefixtures("quick")
EARLY, LATE = "2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z"


def rewrite(home: Home, record: Acceptance, accepted: str) -> None:
    """Change the time of a record."""
    home.accept(record._replace(accepted=accepted))


def also_by_another_bundle(home: Home, version: str) -> None:
    """Accept the same release once more with another manifest, as a repair does."""
    record = next(one for one in home.acceptances() if one.version == version)
    home.accept(record._replace(manifest_sha256="f" * 64, accepted=LATE))


def test_a_full_bundle_leaves_the_record_of_its_delta(dist: Dist, keys: Keys, home: Home) -> None:
    for path in (dist.base, dist.delta, dist.full):
        run_import(path, keys.trust(), home)
    manifests = {check(path, keys.trust()).sha256 for path in (dist.base, dist.delta, dist.full)}
    assert {record.manifest_sha256 for record in home.acceptances()} == manifests
    assert {path.stem for path in home.accepted.iterdir()} == manifests


def test_each_bundle_of_a_release_is_judged_as_of_its_own_acceptance(
    dist: Dist, keys: Keys, home: Home
) -> None:
    """A key that expired in between is valid for the earlier acceptance."""
    for path in (dist.base, dist.delta, dist.full):
        run_import(path, keys.trust(), home)
    full = check(dist.full, keys.trust()).sha256
    for record in home.acceptances():
        rewrite(home, record, LATE if record.manifest_sha256 == full else EARLY)
    ended = keys.line(options='namespaces="airlift-bundle",valid-before="20200115"')
    signers = ["--allowed-signers", str(keys.signers(ended)), "--home", str(home.root)]
    assert main(["verify", str(dist.delta), *signers]) == 0
    assert main(["verify", str(dist.full), *signers]) != 0


def test_records_that_are_named_after_the_serial_count_for_ever(
    craft: Craft, keys: Keys, home: Home
) -> None:
    first, second = craft(Recipe()), craft(Recipe("1.1.0", 2))
    for path in (first, second):
        run_import(path, keys.trust(), home)
    for record in home.acceptances():
        path = home.accepted / f"{record.manifest_sha256}.json"
        path.rename(home.accepted / f"{record.serial}.json")
    before = {path.name: path.read_bytes() for path in home.accepted.iterdir()}
    assert run_import(second, keys.trust(), home).already
    assert run_import(first, keys.trust(), home).restored
    assert [one.serial for one in home.acceptances()] == [1, 2]
    assert {path.name: path.read_bytes() for path in home.accepted.iterdir()} == before


def test_prune_keeps_so_many_releases_not_records(craft: Craft, keys: Keys, home: Home) -> None:
    for number in range(4):
        recipe = Recipe(f"1.{number}.0", number + 1, app_layer=f"{number}".encode() * 900)
        run_import(craft(recipe), keys.trust(), home)
    for version in ("1.0.0", "1.3.0"):
        also_by_another_bundle(home, version)
    found = prune.apply(home, keep=2)
    assert [record.version for record in found.kept] == ["1.2.0", "1.3.0"]
    assert [record.version for record in found.releases] == ["1.0.0", "1.1.0"]
    assert sorted(path.name for path in home.releases.iterdir()) == ["1.2.0", "1.3.0"]


def test_a_newest_release_of_two_records_is_still_the_newest(
    craft: Craft, keys: Keys, home: Home
) -> None:
    for number in range(2):
        run_import(craft(Recipe(f"1.{number}.0", number + 1)), keys.trust(), home)
    also_by_another_bundle(home, "1.1.0")
    (home.release("1.1.0") / "manifest.json").unlink()
    assert main(["prune", "--home", str(home.root)]) != 0
    with pytest.raises(AirliftError, match=r"blobs that release .* needs are unknown") as caught:
        prune.plan(home)
    assert "import the bundle of release 1.1.0 again" in caught.value.fix


def test_a_receipt_lists_each_release_once(dist: Dist, keys: Keys, home: Home) -> None:
    for path in (dist.base, dist.delta, dist.full):
        run_import(path, keys.trust(), home)
    taken, _ = receipt.take(home, contents=False, progress=lambda _: None)
    assert [release["version"] for release in taken["releases"]] == ["1.0.0", "1.1.0"]


def test_a_record_says_what_it_always_said(craft: Craft, keys: Keys, home: Home) -> None:
    run_import(craft(Recipe()), keys.trust(), home)
    (path,) = home.accepted.iterdir()
    assert path.suffix == ".json"
    assert set(json.loads(path.read_bytes())) == {
        "format",
        "serial",
        "version",
        "accepted",
        "manifest_sha256",
        "release_sha256",
        "signers",
    }
