"""Fuzz rows for what `bundle/` reads from a vendor: bundles, their parts and layers."""

from __future__ import annotations

import gzip
import inspect
import shutil
import zlib
from pathlib import Path
from typing import Any

import zstandard

from bundle.builder import build
from bundle.carry import join, split
from bundle.errors import Kind
from bundle.format import manifest, parts, tar
from bundle.format.layer_size import Unpacked
from bundle.verify import checks
from tests.fuzz.mutate import (
    SEAM,
    Bytes,
    Files,
    Json,
    Tar,
)
from tests.fuzz.parser import Case, Kit, fuzzed
from tests.unit.bundle.bundlekit import Recipe

TORN = (Kind.UNREADABLE, Kind.CUT_SHORT, Kind.STRUCTURE, Kind.ALTERED)
UNTRUSTED = (Kind.UNSIGNED, Kind.UNKNOWN_SIGNER, Kind.BAD_SIGNATURE)


def quiet(*_: object) -> None:
    """Discard progress messages."""


def small(kit: Kit, **options: Any) -> Path:
    """Return a small bundle, so that most of its bytes are structure."""
    recipe = Recipe(**{"files": {"verify.pyz": b"v"}, "app_layer": b"a" * 700, **options})
    return recipe.make(kit.folder / "airlift-1.0.0-amd64.tar", kit.keys)


def delta(kit: Kit) -> Path:
    base = Recipe(files={"verify.pyz": b"v"})
    return small(kit, version="1.1.0", serial=2, since=base)


def raw(path: Path) -> bytes:
    with checks.opened(path, trust=None, home=None) as opened:
        return opened.raw_manifest


@fuzzed(
    "manifest",
    "bundle.format.manifest.parse",
    *("bundle/format/manifest.py", "bundle/format/delta.py", "bundle/core/schema.py"),
    form=Json(manifest.encode, (b'"members"', b"1.0.0-rc.1", b"blobs/sha256/", b"content/")),
    kinds=(Kind.MANIFEST,),
)
def of_manifest(kit: Kit) -> Case:
    """An accepted manifest is canonical, and each of its members can be extracted safely."""
    seeds = [raw(small(kit)), raw(delta(kit))]

    def check(data: bytes) -> None:
        found = manifest.parse(data)
        assert manifest.encode(found.data) == data
        assert len(found.release_sha256) == 64
        assert found.total_size >= 0
        for member in found.contents:
            path = Path("/r") / member.release_path
            assert path.resolve().is_relative_to("/r"), member.path
            tar.header(member.path, member.size)

    return Case(seeds, check)


@fuzzed(
    "archive",
    "bundle.verify.checks.opened, without trust",
    *("bundle/format/tar.py", "bundle/verify/checks.py", "bundle/format/parts.py"),
    form=Tar(),
    kinds=(*TORN, Kind.MANIFEST, Kind.UNSIGNED),
)
def of_archive(kit: Kit) -> Case:
    """The product's writer reproduces an accepted archive byte for byte."""
    seeds = [small(kit).read_bytes(), delta(kit).read_bytes()]
    again = kit.folder / "again.tar"

    def check(data: bytes) -> None:
        path = kit.file("bundle.tar", data)
        with checks.opened(path, trust=None, home=None) as opened:
            checks.check_members(opened)
            members = [
                (member.path, data[start : start + member.size], member.size)
                for member, start in zip(opened.manifest.members, opened.offsets, strict=True)
            ]
            again.unlink(missing_ok=True)
            build.write(again, opened.raw_manifest, opened.signatures, members)
        assert again.read_bytes() == data

    return Case(seeds, check)


@fuzzed(
    "bundle",
    "bundle.verify.checks.opened, with trust",
    *("bundle/verify/checks.py", "bundle/trust/sshsig.py"),
    form=Tar(),
    kinds=(*TORN, *UNTRUSTED, Kind.MANIFEST, Kind.TOO_FEW_SIGNERS),
    slow=True,
)
def of_bundle(kit: Kit) -> Case:
    """No altered bundle is accepted."""
    seeds = [small(kit).read_bytes(), small(kit, keys=("release", "second")).read_bytes()]
    trust = kit.keys.trust(kit.keys.line(), kit.keys.line("second", "second@airlift.example"))

    def check(data: bytes) -> None:
        with checks.opened(kit.file("bundle.tar", data), trust=trust, home=None) as opened:
            checks.check_members(opened)
        # Signatures may be omitted or repeated: that changes neither the manifest nor a member.
        good = _without_signatures(data)
        assert any(_without_signatures(seed) == good for seed in seeds)

    return Case(seeds, check)


def _without_signatures(data: bytes) -> bytes:
    start = tar.BLOCK + int(data[124:135], 8)
    start += -start % tar.BLOCK
    end = start
    while data[end:].startswith(manifest.SIGNATURE.encode()):
        end += tar.BLOCK + int(data[end + 124 : end + 135], 8)
        end += -end % tar.BLOCK
    return data[:start] + data[end:]


def _split(kit: Kit) -> parts.Index:
    folder = kit.folder / "parts"
    shutil.rmtree(folder, ignore_errors=True)
    path = small(kit)
    size = path.stat().st_size // 3 + 1
    return split.split(path, size=size, out=folder, key=None, log=quiet, progress=quiet)


@fuzzed(
    "index of parts",
    "bundle.format.parts.read_index",
    "bundle/format/parts.py",
    form=Json(words=(b".part-01", b".parts", b'"bytes": ')),
    kinds=(Kind.PART,),
)
def of_index(kit: Kit) -> Case:
    """An accepted index has the form that `split` writes, and its parts cover the bundle."""

    def check(data: bytes) -> None:
        found = parts.read_index(kit.file("x.tar.parts", data))
        assert found.encode() == data
        assert found.starts()[-1] + found.parts[-1].size == found.bundle.size

    return Case([_split(kit).encode()], check)


@fuzzed(
    "parts, joined",
    "bundle.carry.join.join",
    *("bundle/carry/join.py", "bundle/format/parts.py"),
    form=Files((Json(), Bytes())),
    kinds=(Kind.PART, Kind.OUTPUT, Kind.NO_SPACE),
    slow=True,
)
def of_parts(kit: Kit) -> Case:
    """Joined parts have the hash of their index; with the original index, they are the bundle."""
    index = _split(kit)
    folder = kit.folder / "parts"
    whole = small(kit).read_bytes()
    files = [index.encode(), *((folder / part.name).read_bytes() for part in index.parts)]
    out = kit.folder / "joined"

    def check(data: bytes) -> None:
        shutil.rmtree(out, ignore_errors=True)
        first, *others = data.split(SEAM)
        place = kit.file(index.name, first)
        for number, each in enumerate(others, 1):
            kit.file(parts.part_name(index.bundle.name, number), each)
        made = join.join([place], out=out, trust=None, log=quiet, progress=quiet)
        assert store_sha(made.path) == made.index.bundle.sha256
        assert first != files[0] or made.path.read_bytes() == whole

    return Case([SEAM.join(files)], check)


def store_sha(path: Path) -> str:
    """Return the hash of a file."""
    with tar.Source(path) as source:
        return parts.sha256_of(source)


def _frames(data: bytes) -> list[bytes]:
    """Return the bytes as encoders write them, whole and streamed."""
    streamed = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    whole = zstandard.ZstdCompressor(level=3)
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    return [
        whole.compress(data),
        streamed.compress(data) + streamed.flush(),
        whole.compress(data[:300]) + skippable + whole.compress(data[300:]),
        gzip.compress(data, 1, mtime=0),
        gzip.compress(data[:70], 9, mtime=0) + gzip.compress(data[70:], 1, mtime=0),
        data,
    ]


def _unpacked(data: bytes, limit: int) -> int | None:
    """Return the unpacked size of a layer, or None if no decoder accepts it."""
    try:
        if data.startswith(b"\x1f\x8b"):
            return _gunzipped(data, limit)
        decoder = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        size = 0
        while piece := decoder.read(1 << 16):
            size += len(piece)
            if size > limit:
                break
    except (zstandard.ZstdError, zlib.error, EOFError):
        return None
    return size


def _gunzipped(data: bytes, limit: int) -> int:
    size = 0
    while data and size <= limit:
        decoder = zlib.decompressobj(wbits=31)
        while data and not decoder.eof and size <= limit:
            size += len(decoder.decompress(data, 1 << 16))
            data = decoder.unconsumed_tail
        data = decoder.unused_data
    return size


@fuzzed(
    "layer",
    "bundle.format.layer_size.Unpacked",
    "bundle/format/layer_size.py",
    form=Bytes((b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18\0\0\0\0", b"\x1f\x8b\x08\0", b"BZh9")),
    kinds=(Kind.MANIFEST,),
)
def of_layer(kit: Kit) -> Case:
    """The verdict is the same for any chunk size, and no decoder unpacks more than was counted."""
    text = b"".join(b"%d lines of a layer\n" % number for number in range(3000))
    seeds = [frame for data in (text, bytes(5000), b"x" * 800_000) for frame in _frames(data)]
    limit = 1 << 20

    def counted(data: bytes, step: int) -> Unpacked:
        found = Unpacked("blobs/sha256/0", limit)
        view = memoryview(data)
        for start in range(0, len(data), step):
            found.feed(view[start : start + step])
        return found

    def check(data: bytes) -> None:
        whole, pieces = counted(data, len(data) or 1), counted(data, 1 + len(data) % 97)
        # Where the check can read a layer twice, it takes a function to read it.
        asks = len(inspect.signature(whole.check).parameters)
        again = [lambda at, size: data[at : at + size]] * asks
        verdicts = []
        for one in (whole, pieces):
            try:
                one.check(*again)
                verdicts.append(True)
            except Exception as error:
                verdicts.append(False)
                refusal = error
        assert verdicts[0] == verdicts[1], verdicts
        if not verdicts[0]:
            raise refusal
        assert whole.size == pieces.size
        really = _unpacked(data, limit) if whole._kind in ("gzip", "zstd") else None
        # Otherwise, a zstd block of unknown size counts for a quarter of the maximum.
        most = whole.size * (4 if whole._kind == "zstd" and not again else 1)
        assert really is None or really <= most, (really, whole.size)

    return Case(seeds, check)
