"""No byte of a bundle can be changed and no cut goes unseen, in any field, member or gap."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from bundle.builder import build
from bundle.errors import Kind
from bundle.trust import sshsig
from bundle.trust.sshsig import Trust, Verdict
from tests.unit.bundle.bundlekit import SOAK, Keys, Recipe, check, records, refused

PLACES = 20_000 if SOAK else 1_000
# The first and last byte of each field in a ustar header.
FIELDS = [0, 99, 100, 107, 108, 115, 116, 123, 124, 134, 135, 136, 147, 148, 153, 154, 155]
FIELDS += [156, 157, 256, 257, 262, 263, 264, 265, 296, 297, 328, 329, 336, 337, 344, 345, 499, 511]


def noise(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


@pytest.fixture(scope="session")
def medium(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    """Return 5 MB in 25 members, with blobs and with sizes near a block's."""
    files = {f"content/sizes/{size}": noise("s", size) for size in (0, 1, 511, 512, 513, 1024)}
    files["content/" + "long/" * 20 + "name" * 24] = b"split between prefix and name"
    files["packages/debian-13/engine.deb"] = noise("deb", 1 << 20)
    files["wheels/tool-1-py3-none-any.whl"] = noise("wheel", 1_000_003)
    recipe = Recipe(files=files, app_layer=noise("layer", 3 << 20), keys=("release", "second"))
    return recipe.make(tmp_path_factory.mktemp("medium") / "airlift-1.0.0-amd64.tar", keys)


@pytest.fixture(scope="session", params=["medium", *(["full"] if SOAK else [])])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy to damage and restore; `make soak` also uses a built one with a wheelhouse."""
    found: Path | build.Built = request.getfixturevalue(request.param)
    path = tmp_path_factory.mktemp("bytes") / "airlift-1.0.0-amd64.tar"
    path.write_bytes((found.path if isinstance(found, build.Built) else found).read_bytes())
    return path


@pytest.fixture
def asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the real ssh-keygen once for each new manifest and signature."""
    real = sshsig.verify

    @cache
    def verify(message: bytes, signatures: tuple[tuple[str, bytes], ...], trust: Trust) -> Verdict:
        return real(message, signatures, trust)

    monkeypatch.setattr(sshsig, "verify", lambda m, s, t: verify(m, tuple(s), t))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Spoilt:
    """Context manager that changes a byte in place and restores it."""

    def __init__(self, path: Path, offset: int, mask: int = 1) -> None:
        self.path, self.offset, self.mask = path, offset, mask

    def _flip(self) -> None:
        fd = os.open(self.path, os.O_RDWR)
        byte = os.pread(fd, 1, self.offset)[0]
        os.pwrite(fd, bytes([byte ^ self.mask]), self.offset)
        os.close(fd)

    def __enter__(self) -> None:
        self._flip()

    def __exit__(self, *_: object) -> None:
        self._flip()


@dataclass(frozen=True)
class Region:
    """A range of the file, with the errors that a change in it may cause."""

    name: str
    start: int
    length: int
    kinds: tuple[Kind, ...]
    words: tuple[str, ...]


def regions(raw: bytes) -> Iterator[Region]:
    offset = 0
    for part in records(raw):
        size, name = int(part.header[124:135], 8), part.name
        yield Region(f"{name} header", offset, 512, *_header(name))
        yield Region(f"{name} data", offset + 512, size, *_data(name))
        gap = len(part.data) - size
        yield Region(f"{name} gap", offset + 512 + size, gap, (Kind.ALTERED,), ("the gap",))
        offset += 512 + len(part.data)
    said = ("damaged: the header of what follows", "damaged: its end mark is not empty")
    yield Region("end", offset, 1024, (Kind.ALTERED,), said)


def _header(name: str) -> tuple[tuple[Kind, ...], tuple[str, ...]]:
    """Return errors of a changed header: the checksum fails, or only its padding differs."""
    form = "has a mode, owner, date or form that a bundle's member cannot have"
    if name == "manifest.json":
        return (Kind.UNREADABLE, Kind.STRUCTURE), ("does not begin with manifest.json", form)
    # The place of the first member could also hold another signature.
    words = (f"the header of {name}", f"or {name}", form)
    return (Kind.ALTERED, Kind.STRUCTURE), words


def _data(name: str) -> tuple[tuple[Kind, ...], tuple[str, ...]]:
    if name == "manifest.json":
        return (Kind.BAD_SIGNATURE,), ("does not fit what was signed",)
    if name.startswith("manifest.sig"):
        kinds = (Kind.UNSIGNED, Kind.BAD_SIGNATURE, Kind.UNKNOWN_SIGNER, Kind.TOO_FEW_SIGNERS)
        return kinds, ("holds no signature", "does not fit", "not in the list", "made for", "1 key")
    return (Kind.ALTERED,), (f"{name} was altered",)


def trust_of(keys: Keys, path: Path) -> Trust:
    """Require all signers, so that each byte of a signature matters."""
    signed = sum(part.name.startswith("manifest.sig") for part in records(path.read_bytes()))
    lines = keys.line(), keys.line("second", identity="security@airlift.example")
    return keys.trust(*lines, required=signed)


def assert_refused(path: Path, offset: int, mask: int, region: Region, trust: Trust) -> None:
    with Spoilt(path, offset, mask):
        error = refused(path, trust)
    at = f"byte {offset} ({region.name}): {error.kind} {error.what}"
    assert error.kind in region.kinds, at
    assert any(words in error.what for words in region.words), at


@pytest.mark.usefixtures("asked_once")
def test_a_byte_of_every_field_member_and_gap(bundle: Path, keys: Keys) -> None:
    before, trust = digest(bundle), trust_of(keys, bundle)
    tried = 0
    for region in regions(bundle.read_bytes()):
        places = {0, region.length // 2, region.length - 1} if region.length else set()
        if region.name.endswith(" header"):
            places = {*FIELDS}
        for place in sorted(places):
            assert_refused(bundle, region.start + place, 1 + place % 255, region, trust)
            tried += 1
    assert tried > 25 * len(FIELDS)
    assert digest(bundle) == before
    check(bundle, trust)


@pytest.mark.usefixtures("asked_once")
@pytest.mark.slow
def test_bytes_at_many_places(bundle: Path, keys: Keys) -> None:
    """Half of the places are random; half are spread evenly over the regions, small ones too."""
    dice, trust = random.Random(1), trust_of(keys, bundle)
    known = [region for region in regions(bundle.read_bytes()) if region.length]
    size = bundle.stat().st_size
    for number in range(PLACES):
        offset = dice.randrange(size)
        if number % 2:
            one = dice.choice(known)
            offset = one.start + dice.randrange(one.length)
        region = next(r for r in known if r.start <= offset < r.start + r.length)
        assert_refused(bundle, offset, dice.randrange(1, 256), region, trust)
    check(bundle, trust)


@pytest.mark.usefixtures("asked_once")
def test_cuts_at_every_boundary_and_inside(bundle: Path, keys: Keys) -> None:
    trust, raw = trust_of(keys, bundle), bundle.read_bytes()
    lengths = {0, 1, len(raw) - 1}
    for region in regions(raw):
        end = region.start + region.length
        lengths |= {region.start, region.start + 1, region.start + region.length // 2, end - 1}
    for length in sorted(lengths & {*range(len(raw))}, reverse=True):
        os.truncate(bundle, length)
        error = refused(bundle, trust)
        wanted = Kind.CUT_SHORT if length >= 512 else Kind.UNREADABLE
        assert error.kind is wanted, f"cut to {length}: {error}"
        assert ("cut short" in error.what) == (length >= 512)
    bundle.write_bytes(raw)
    check(bundle, trust)


@pytest.mark.usefixtures("asked_once")
def test_a_good_bundle_is_good_among_all_these(bundle: Path, keys: Keys) -> None:
    """Negative control: damaging and restoring leaves the bundle valid."""
    assert refused(bundle, keys.trust(required=3)).kind is Kind.TOO_FEW_SIGNERS
    with Spoilt(bundle, 0), Spoilt(bundle, 0):
        assert len(check(bundle, trust_of(keys, bundle)).manifest.members) > 15
