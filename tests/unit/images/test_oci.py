"""From `docker save` to an OCI layout: each blob once, unchanged, never a damaged one."""

from __future__ import annotations

import io
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from bundle.builder.images.blobs import BlobCache, DamagedBlobError, Layer
from bundle.builder.images.layout import export, write_layout
from bundle.builder.problems import Problem
from bundle.format.layer_size import Unpacked
from tests.unit.images.imagekit import (
    StandInEngine,
    TinyImage,
    saved_classic,
    saved_oci,
    sha256,
    snapshot,
    tar,
)

BASE = tar({"usr/lib/shared": b"shared " * 40_000})
APP = TinyImage([BASE, tar({"app": b"code"})], env=["A=1"])
DATA = TinyImage([BASE, tar({"data": b"rows"})], env=["B=2"])


def keep(_message: str) -> None:
    """Discard the message."""


def holds_both(stand_in: StandInEngine) -> None:
    stand_in.holds({"app": APP, "data": DATA}, saved_classic([APP, DATA]), {})


def classic() -> tuple[bytes, list[str]]:
    return saved_classic([APP, DATA]), [APP.id, DATA.id]


def newer() -> tuple[bytes, list[str]]:
    return saved_oci([APP, DATA])


def containerd() -> tuple[bytes, list[str]]:
    return saved_oci([APP, DATA], packed=True)


@pytest.mark.parametrize("saved", [classic, newer, containerd])
def test_every_layout_of_docker_save_gives_the_same_images(
    saved: Callable[[], tuple[bytes, list[str]]], stand_in: StandInEngine
) -> None:
    archive, ids = saved()
    stand_in.holds({"app": APP, "data": DATA}, archive, {"app": ids[0], "data": ids[1]})
    images = export(["app", "data"], BlobCache(), keep)
    assert [layer.diff_id for layer in images["app"].layers] == APP.diff_ids
    assert images["app"].config_digest == APP.id
    assert images["data"].config_digest == DATA.id
    assert images["app"].layers[0] == images["data"].layers[0]


def test_layout_is_complete_shares_layers_and_has_nothing_else(
    stand_in: StandInEngine, tmp_path: Path
) -> None:
    holds_both(stand_in)
    blobs = BlobCache()
    images = export(["app", "data"], blobs, keep)
    layout = tmp_path / "layout"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    (layout / "blobs" / "sha256" / ("0" * 64)).write_text("of an earlier build")
    write_layout(layout, images, blobs)

    found = {path.name for path in (layout / "blobs" / "sha256").iterdir()}
    wanted = {d.removeprefix("sha256:") for image in images.values() for d in image.blobs}
    assert found == wanted
    assert len(found) == 3 + 2 + 2  # three layers, two configs, two manifests
    for name in found:
        assert sha256((layout / "blobs" / "sha256" / name).read_bytes()) == f"sha256:{name}"
    index = json.loads((layout / "index.json").read_bytes())
    assert [one["digest"] for one in index["manifests"]] == [
        images[name].manifest_digest for name in ("app", "data")
    ]


def test_layers_unpack_to_what_the_engine_has_and_the_config_keeps_every_byte(
    stand_in: StandInEngine, tmp_path: Path
) -> None:
    holds_both(stand_in)
    blobs = BlobCache()
    image = export(["app"], blobs, keep)["app"]
    for layer, plain in zip(image.layers, APP.layers, strict=True):
        packed = blobs.path(layer.digest).read_bytes()
        stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed))
        assert stream.read() == plain
        assert layer.media_type.endswith("tar+zstd")
        assert (len(packed), len(plain)) == (layer.size, layer.unpacked_size)
    assert blobs.path(image.config_digest).read_bytes() == APP.config
    assert image.unpacked_size == sum(map(len, APP.layers))


def test_a_verifier_needs_not_unpack_a_layer_to_know_its_size(tmp_path: Path) -> None:
    """Each block's upper limit is near its size, so their sum is near the layer's size."""
    chance = random.Random(3)
    words = [chance.randbytes(9).hex().encode() for _ in range(200)]
    # Alternate kinds of data, between which an encoder would split a block.
    parts = [b" ".join(chance.choices(words, k=800)) + chance.randbytes(9_000) for _ in range(120)]
    plain = b"".join(parts)
    (tmp_path / "plain").write_bytes(plain)
    blobs = BlobCache()
    packed = blobs.path(blobs.compress(tmp_path / "plain", sha256(plain)).digest).read_bytes()
    counted = Unpacked("blobs/sha256/x", len(plain) + (128 << 10))
    counted.feed(memoryview(packed))
    counted.check(lambda *_: pytest.fail("it was unpacked"))
    assert counted.size >= len(plain)
    assert zstandard.ZstdDecompressor().decompress(packed) == plain


def test_two_builders_make_the_same_bytes(stand_in: StandInEngine, tmp_path: Path) -> None:
    holds_both(stand_in)
    seen = []
    for name in ("one", "two"):
        blobs = BlobCache(tmp_path / name)
        write_layout(tmp_path / f"{name}-layout", export(["app", "data"], blobs, keep), blobs)
        seen.append(snapshot(tmp_path / f"{name}-layout"))
    assert seen[0] == seen[1]


def test_known_images_are_not_saved_again(stand_in: StandInEngine) -> None:
    holds_both(stand_in)
    first = export(["app", "data"], BlobCache(), keep)
    assert stand_in.saves == 1
    assert export(["app", "data"], BlobCache(), keep) == first
    assert stand_in.saves == 1


def test_only_a_new_layer_is_compressed(
    stand_in: StandInEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds_both(stand_in)
    export(["app"], BlobCache(), keep)
    compressed: list[str] = []
    original = BlobCache.compress

    def counted(blobs: BlobCache, plain: Path, diff_id: str) -> Layer:
        compressed.append(diff_id)
        return original(blobs, plain, diff_id)

    monkeypatch.setattr(BlobCache, "compress", counted)
    export(["app", "data"], BlobCache(), keep)
    assert compressed == [DATA.diff_ids[1]]


def test_a_layer_that_the_engine_lost_is_named(stand_in: StandInEngine) -> None:
    other = TinyImage([BASE], env=APP.env)
    stand_in.holds({"app": APP}, saved_classic([other]), {})
    with pytest.raises(Problem, match=f"layer {APP.diff_ids[1]} is missing or damaged"):
        export(["app"], BlobCache(), keep)


def test_a_save_that_is_cut_short_is_refused(stand_in: StandInEngine) -> None:
    stand_in.holds({"app": APP}, saved_classic([APP])[:100_000], {})
    with pytest.raises(Problem, match="docker save failed"):
        export(["app"], BlobCache(), keep)
    holds_both(stand_in)
    assert export(["app"], BlobCache(), keep)["app"].config_digest == APP.id


def test_an_image_that_is_not_there_is_named(stand_in: StandInEngine) -> None:
    holds_both(stand_in)
    with pytest.raises(Problem, match="no image nothing"):
        export(["app", "nothing"], BlobCache(), keep)


def test_a_damaged_blob_never_reaches_a_layout_and_is_made_anew(
    stand_in: StandInEngine, tmp_path: Path
) -> None:
    holds_both(stand_in)
    blobs = BlobCache()
    images = export(["app"], blobs, keep)
    victim = blobs.path(images["app"].layers[0].digest)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(DamagedBlobError, match="damaged on this disk"):
        write_layout(tmp_path / "layout", images, blobs)
    assert not victim.exists()
    again = export(["app"], blobs, keep)
    write_layout(tmp_path / "layout", again, blobs)
    assert again == images


def test_a_layout_needs_the_disk_once_or_lies_on_another(stand_in: StandInEngine) -> None:
    holds_both(stand_in)
    blobs = BlobCache()
    images = export(["app"], blobs, keep)
    with (
        tempfile.TemporaryDirectory(dir=blobs.directory) as beside,
        tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere,
    ):
        for folder, same in ((beside, True), (elsewhere, False)):
            write_layout(Path(folder), images, blobs)
            for digest in images["app"].blobs:
                placed = Path(folder, "blobs", "sha256", digest.removeprefix("sha256:"))
                assert placed.samefile(blobs.path(digest)) is same
                assert sha256(placed.read_bytes()) == digest


def test_nothing_is_left_in_the_cache_but_results(stand_in: StandInEngine) -> None:
    holds_both(stand_in)
    blobs = BlobCache()
    export(["app", "data"], blobs, keep)
    assert not list(blobs.directory.rglob(".*"))
