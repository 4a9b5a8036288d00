"""Endless files are refused wherever others can place one: each read has a limit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.builder import countersign, sums
from bundle.carry import join
from bundle.errors import AirliftError, Kind
from bundle.jumphost import installed, receipt
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import Keys, run_import

pytestmark = pytest.mark.timeout(60)


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def large(path: Path) -> None:
    """Return a sparse file: it costs nothing to make, and all memory to read."""
    path.unlink(missing_ok=True)
    with path.open("wb") as out:
        out.truncate(1 << 40)


ENDLESS = [pipe, device, large]
Endless = Callable[[Path], None]


@pytest.mark.parametrize("endless", ENDLESS)
def test_the_signature_of_an_index(
    endless: Endless, stick: Path, keys: Keys, tmp_path: Path
) -> None:
    endless(stick.with_name(f"{stick.name}.sig"))
    nothing = {"log": lambda _: None, "progress": lambda _: None}
    with pytest.raises(AirliftError) as caught:
        join.join([stick], out=tmp_path, trust=keys.trust(), **nothing)
    assert caught.value.kind is Kind.UNSIGNED
    assert "cannot read the signature of the index" in caught.value.what


@pytest.mark.parametrize("endless", ENDLESS)
@pytest.mark.parametrize("ending", ["", ".sig"])
def test_a_receipt(endless: Endless, ending: str, keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    for name in (path, receipt.signature_of(path)):
        name.write_text("{")
    endless(path.with_name(path.name + ending))
    with pytest.raises(AirliftError, match="cannot be read"):
        receipt.read(path, keys.signers())
    if not ending:
        assert not receipt.is_receipt(path)


@pytest.mark.parametrize("endless", ENDLESS)
@pytest.mark.parametrize("name", [sums.NAME, f"{sums.NAME}.sig"])
def test_sums_of_others(
    endless: Endless, name: str, small: Path, keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / small.name).write_bytes(small.read_bytes())
    sums.write(tmp_path, small.name, keys.key())
    endless(tmp_path / name)
    assert sums._vouched_for(tmp_path, keys.key()) == {}


@pytest.mark.parametrize("endless", ENDLESS)
def test_a_signature_made_elsewhere(endless: Endless, small: Path, tmp_path: Path) -> None:
    path = tmp_path / small.name
    path.write_bytes(small.read_bytes())
    endless(tmp_path / "manifest.json.sig")
    with pytest.raises(AirliftError, match="the signature cannot be read") as caught:
        countersign.add(path, key=None, signature=tmp_path / "manifest.json.sig")
    assert caught.value.kind is Kind.SIGNING
    assert path.read_bytes() == small.read_bytes()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("endless", [pipe, device])
def test_a_file_of_an_installed_release(
    endless: Endless, small: Path, keys: Keys, home: Home
) -> None:
    run_import(small, keys.trust(), home)
    endless(home.current / "ansible.cfg")
    with pytest.raises(AirliftError) as caught:
        installed.check(home.current, trust=keys.trust(), home=home)
    assert caught.value.kind is Kind.RELEASE_ALTERED
