"""SHA256SUMS lists the files that its signer verified, and no others of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.builder import countersign, sums
from bundle.errors import AirliftError, Kind
from bundle.trust import sshsig
from tests.unit.bundle.bundlekit import Keys, Recipe, sha

OLD, NEW = "airlift-1.0.0-amd64.tar", "airlift-1.1.0-amd64.tar"


@pytest.fixture
def dist(tmp_path: Path, keys: Keys) -> Path:
    """Return a folder with one release that is listed, and one that is not yet."""
    for name in (OLD, NEW):
        (tmp_path / name).write_bytes(name.encode())
    sums.write(tmp_path, OLD, keys.key())
    return tmp_path


def listed(folder: Path) -> list[str]:
    raw = (folder / sums.NAME).read_bytes()
    sshsig.check_fits(raw, (folder / f"{sums.NAME}.sig").read_bytes())
    return [line.split("  ")[1] for line in raw.decode().splitlines()]


def test_what_the_same_key_listed_stays(dist: Path, keys: Keys) -> None:
    assert sums.write(dist, NEW, keys.key()) == sha(NEW.encode())
    assert listed(dist) == [OLD, NEW]
    sums.write(dist, OLD, keys.key())
    assert listed(dist) == [OLD, NEW]


@pytest.mark.parametrize("change", ["another key", "altered file", "added line", "no signature"])
def test_what_nobody_saw_is_not_vouched_for(change: str, dist: Path, keys: Keys) -> None:
    key = keys.key()
    if change == "another key":
        key = keys.key("second")
    elif change == "altered file":
        (dist / OLD).write_bytes(b"evil")
    elif change == "no signature":
        (dist / f"{sums.NAME}.sig").unlink()
    else:
        with (dist / sums.NAME).open("a") as out:
            out.write(f"{sha(b'evil')}  airlift-evil.tar\n")
        (dist / "airlift-evil.tar").write_bytes(b"evil")
    sums.write(dist, NEW, key)
    assert listed(dist) == [NEW]


@pytest.mark.parametrize("raw", [b"\xff\xfe\0", b"", b"\0" * 1000])
def test_a_list_that_is_not_one(raw: bytes, dist: Path, keys: Keys) -> None:
    (dist / sums.NAME).write_bytes(raw)
    (dist / f"{sums.NAME}.sig").write_bytes(raw)
    sums.write(dist, NEW, keys.key())
    assert listed(dist) == [NEW]


def test_a_second_signer_lists_the_bundle_only(dist: Path, keys: Keys) -> None:
    path = Recipe().make(dist / "airlift-2.0.0-amd64.tar", keys)
    countersign.add(path, key=keys.key("second"), signature=None)
    assert listed(dist) == [path.name]


def test_parts_are_not_signed_and_the_command_can_be_copied(
    tmp_path: Path, stick: Path, keys: Keys
) -> None:
    folder = stick.parent.rename(tmp_path / "my stick")
    with pytest.raises(AirliftError) as caught:
        countersign.add(folder / stick.name, key=keys.key(), signature=None)
    assert caught.value.kind is Kind.SIGNING
    assert f"join '{folder / stick.name}'," in caught.value.fix
