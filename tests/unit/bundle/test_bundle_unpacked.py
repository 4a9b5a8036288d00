"""Layers that unpack to too much are refused while their bytes are read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import AirliftError, Kind
from bundle.format import zstd as unpacking
from bundle.format.layer_size import Unpacked
from bundle.jumphost.store import Home
from scripts.bench_bundle import VERIFY_AND_TELL_PEAK
from tests.unit.bundle.bundlekit import (
    TREE,
    Keys,
    Recipe,
    arguments,
    check,
    everything,
    refused,
    run_import,
)
from tests.unit.bundle.printed import Typed, runs

Craft = Callable[[Recipe], Path]

PLAIN = random.Random(5).randbytes(200_000) + b"layer " * 200_000


def zstd(data: bytes, *, said: bool = True, checksum: bool = False) -> bytes:
    compressor = zstandard.ZstdCompressor(1, write_content_size=said, write_checksum=checksum)
    return compressor.compress(data)


def parts(data: bytes) -> bytes:
    """Return several frames: one empty, one to be skipped, one of many blocks."""
    skipped = b"\x5a\x2a\x4d\x18" + (700).to_bytes(4, "little") + bytes(700)
    frames = (data[:10], b"", data[10:300], data[300:70_000], data[70_000:])
    return skipped + b"".join(zstd(frame, checksum=len(frame) > 20) for frame in frames)


PACKED = {
    "tar": PLAIN,
    "gzip": gzip.compress(PLAIN),
    "gzip twice": gzip.compress(PLAIN[:7]) + gzip.compress(PLAIN[7:]),
    "zstd": zstd(PLAIN),
    "zstd in frames": parts(PLAIN),
}


def fed(data: bytes, limit: int, cuts: list[int]) -> Unpacked:
    """Feed a layer in pieces of these lengths, repeated in turn."""
    found, view, turn = Unpacked("blobs/sha256/x", limit), memoryview(data), 0
    while view:
        count = cuts[turn % len(cuts)]
        found.feed(view[:count])
        view, turn = view[count:], turn + 1
    found.check(lambda at, size: data[at : at + size])
    return found


@pytest.mark.parametrize("form", PACKED)
@settings(deadline=None)
@given(cuts=st.lists(st.integers(5_000, 400_000), min_size=1, max_size=8))
def test_a_layer_has_its_size_however_it_comes(form: str, cuts: list[int]) -> None:
    assert fed(PACKED[form], len(PLAIN), cuts).size == len(PLAIN)
    with pytest.raises(AirliftError, match=f"more than the {len(PLAIN) - 1} bytes"):
        fed(PACKED[form], len(PLAIN) - 1, cuts)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_heads_that_are_cut_anywhere(cuts: list[int]) -> None:
    data = PLAIN[:900]
    for packed in (data, gzip.compress(data), zstd(data), parts(data)):
        assert fed(packed, len(data), cuts).size == len(data)


def test_a_frame_that_hides_its_size_is_counted_by_its_blocks() -> None:
    packed = zstd(PLAIN, said=False)
    assert fed(packed, len(PLAIN), [1 << 20]).size == len(PLAIN)
    with pytest.raises(AirliftError, match="unpacks to more"):
        fed(packed, len(PLAIN) - 1, [1 << 20])
    bomb = zstd(bytes(100 << 20), said=False)
    assert len(bomb) < 20_000
    with pytest.raises(AirliftError, match="unpacks to more"):
        fed(bomb, 20 << 20, [1 << 20])


def saying(packed: bytes, size: int) -> bytes:
    """Return the same frame with another size in its header."""
    found = zstandard.get_frame_parameters(packed)
    width = (1, 2, 4, 8)[packed[4] >> 6]
    head = zstandard.frame_header_size(packed)
    assert found.content_size == len(PLAIN)
    return packed[: head - width] + size.to_bytes(width, "little") + packed[head:]


@pytest.mark.parametrize("said", [0, 1, 1000, len(PLAIN) - 1, len(PLAIN) + 1, 1 << 31])
def test_what_a_frame_says_of_its_size_is_not_believed(said: int) -> None:
    """Too small a size admits no more data, and too large a size breaks the stream."""
    packed = saying(zstd(PLAIN), said)
    for limit in (0, 999, len(PLAIN) // 2, len(PLAIN) - 1, len(PLAIN)):
        with pytest.raises(AirliftError, match=r"unpacks to more|no zstd stream"):
            fed(packed, limit, [1 << 20])


@pytest.mark.parametrize("said", [True, False])
@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=6),
    level=st.sampled_from([1, 3, 9, 19]),
    cuts=st.lists(st.integers(1, 100_000), min_size=1, max_size=4),
    gap=st.integers(0, 3000),
)
def test_any_frames_are_counted_to_the_byte(
    said: bool, sizes: list[int], level: int, cuts: list[int], gap: int
) -> None:
    skipped = b"\x50\x2a\x4d\x18" + gap.to_bytes(4, "little") + bytes(gap)
    compressor = zstandard.ZstdCompressor(level, write_content_size=said)
    packed = b"".join(skipped + compressor.compress(PLAIN[-size:]) for size in sizes if size)
    total = sum(sizes)
    assert fed(packed + skipped, total, cuts).size == total
    if total:
        with pytest.raises(AirliftError, match="unpacks to more"):
            fed(packed + skipped, total - 1, cuts)


def test_thousands_of_frames_without_a_size() -> None:
    frame = zstd(PLAIN[-500:], said=False)
    assert fed(frame * 5000, 500 * 5000, [1 << 20]).size == 500 * 5000
    with pytest.raises(AirliftError, match="unpacks to more"):
        fed(frame * 5000, 500 * 5000 - 1, [1 << 20])


def test_what_its_blocks_can_give_at_most_is_enough_of_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A layer that cannot be too large is not unpacked."""
    monkeypatch.setattr(unpacking, "count", lambda *_: pytest.fail("it was unpacked"))
    assert len(PLAIN) <= fed(zstd(PLAIN), 100 << 20, [1 << 20]).size <= 100 << 20


def _exact(data: dict[str, Any]) -> None:
    """Set the exact size, so that only unpacking shows that the layer fits."""
    data["components"]["app"]["unpacked_size"] = len(PLAIN)


def test_nothing_is_unpacked_before_its_hash_was_compared(
    craft: Craft, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = zstd(PLAIN)
    bundle = craft(Recipe(app_layer=layer, edit=_exact))
    check(bundle, keys.trust())
    data = bytearray(bundle.read_bytes())
    data[data.index(layer) + len(layer) // 2] ^= 0xFF
    bundle.write_bytes(data)
    monkeypatch.setattr(unpacking, "count", lambda *_: pytest.fail("it was unpacked"))
    assert refused(bundle, keys.trust()).kind is Kind.ALTERED


@runs("install it (package libzstd1, or libzstd on RHEL), and run this command again")
def test_a_machine_without_the_library(
    typed: Typed, craft: Craft, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = craft(Recipe(app_layer=zstd(PLAIN), edit=_exact))
    unpacking._library.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "_NAME", "libzstd.so.99")
        typed.fails("verify", bundle, *typed.trusting)
        patch.delattr("bundle.format.zstd")
        patch.setitem(sys.modules, "bundle.format.zstd", None)
        assert "python3-minimal is not enough" in typed.fails("verify", bundle, *typed.trusting)
    found = subprocess.run(["dpkg-query", "-W", "libzstd1"], capture_output=True, check=False)
    assert found.returncode == 0
    typed.works("verify", bundle, *typed.trusting)


def windowed(data: bytes, log: int, *, said: bool = False) -> bytes:
    settings = zstandard.ZstdCompressionParameters.from_level(
        1, window_log=log, write_content_size=said
    )
    return zstandard.ZstdCompressor(compression_params=settings).compress(data)


@pytest.mark.parametrize("log", range(10, 28))
def test_a_decoder_takes_the_memory_that_its_frames_ask_for(
    log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def count(_: object, limit: int, window: int) -> int:
        asked.append(window)
        return limit

    monkeypatch.setattr(unpacking, "count", count)
    hidden, stated = windowed(PLAIN, log), windowed(PLAIN, log, said=True)
    # Only the exact limit makes it unpack.
    fed(hidden, len(PLAIN), [1000])
    fed(stated, len(PLAIN), [1000])
    fed(windowed(PLAIN, 10) + hidden + windowed(PLAIN, 11), 3 * len(PLAIN), [1000])
    first, second = (zstandard.get_frame_parameters(one).window_size for one in (hidden, stated))
    assert asked == [first, second, max(first, 1 << 11)]


def test_two_layers_of_ours_are_counted_beside_each_other() -> None:
    packed, both = windowed(PLAIN, 25), threading.Barrier(2)

    def read(at: int, size: int) -> bytes:
        if at == 0:
            both.wait(30)  # breaks if one has to wait for the other
        return packed[at : at + size]

    with ThreadPoolExecutor(2) as pool:
        counts = [pool.submit(unpacking.count, read, len(PLAIN), 1 << 25) for _ in range(2)]
        assert [count.result() for count in counts] == [len(PLAIN)] * 2


def test_decoders_share_their_memory_and_a_large_one_has_all_of_it() -> None:
    memory, used, lock = unpacking.Memory(10), list[int](), threading.Lock()
    seen: list[tuple[int, int]] = []

    def decode(size: int) -> None:
        for _ in range(200):
            with memory.borrowed(size):
                with lock:
                    used.append(size)
                    seen.append((sum(used), len(used)))
                with lock:
                    used.remove(size)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(decode, (1, 3, 4, 7, 10, 134)))
    assert len(seen) == 6 * 200
    assert all(total <= 10 or (total, count) == (134, 1) for total, count in seen)
    # Memory is also returned after an error.
    with pytest.raises(ValueError, match="no zstd stream"), memory.borrowed(10):
        raise ValueError("no zstd stream")
    with memory.borrowed(10):
        pass


#: Unpack a layer in four threads, like the verifier, and print the peak in kB.
COUNT_AND_TELL_PEAK = """
import re, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from bundle.cli import main
from bundle.format import zstd
packed = Path(sys.argv[1]).read_bytes()
count = lambda _: zstd.count(lambda at, size: packed[at:at + size], 1 << 30, int(sys.argv[2]))
with ThreadPoolExecutor(4) as pool:
    print(*set(pool.map(count, range(8))))
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.parametrize("log", [16, 23, 25])
def test_decoders_beside_each_other_stay_below_the_verifiers_memory(
    log: int, tmp_path: Path
) -> None:
    content = random.Random(7).randbytes(1 << 20) * 40
    (tmp_path / "layer").write_bytes(windowed(content, log))
    done = subprocess.run(
        [sys.executable, "-c", COUNT_AND_TELL_PEAK, tmp_path / "layer", str(1 << log)],
        cwd=TREE,
        capture_output=True,
        text=True,
        check=True,
    )
    size, peak = map(int, done.stdout.split())
    assert size == len(content)
    assert peak < 100_000


def test_a_block_that_repeats_one_byte_says_its_size() -> None:
    """RFC 8878, block type 1: three header bytes and one data byte stand for up to 128 KiB."""
    block = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (1).to_bytes(3, "little")
    packed = b"\x28\xb5\x2f\xfd\x00\x58" + block * 400 + last
    assert zstandard.ZstdDecompressor().stream_reader(packed).read() == bytes(400 * (128 << 10))
    assert fed(packed, 400 * (128 << 10), [1000]).size == 400 * (128 << 10)
    with pytest.raises(AirliftError, match="unpacks to more"):
        fed(packed, 100 * (128 << 10), [1000])


@pytest.mark.parametrize("form", [name for name in PACKED if name != "tar"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.999])
def test_a_stream_that_was_cut_short_before_it_was_signed(form: str, keep: float) -> None:
    packed = PACKED[form]
    with pytest.raises(AirliftError, match="is not a complete"):
        fed(packed[: int(len(packed) * keep)], len(PLAIN), [5000])


@pytest.mark.parametrize("start", [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd\x00", b"BZh91"])
def test_a_layer_of_a_few_bytes_is_looked_at_too(start: bytes) -> None:
    with pytest.raises(AirliftError, match=r"is not a complete|bzip2"):
        fed(start, 1000, [1000])


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (bz2.compress(PLAIN), "bzip2"),
        (lzma.compress(PLAIN), "xz"),
        (gzip.compress(PLAIN)[:10] + b"\xff" * 500, "no gzip stream"),
        (zstd(PLAIN[:50]) + b"something else", "no zstd stream"),
        # A block of the reserved type, and one above the maximum size.
        (zstd(PLAIN[:50])[:6] + b"\x07\x00\x00", "no zstd stream"),
        (zstd(PLAIN[:50])[:6] + b"\xfd\xff\xff", "no zstd stream"),
    ],
    ids=["bzip2", "xz", "gzip", "frame", "reserved", "block"],
)
def test_what_no_layer_is_compressed_with(layer: bytes, what: str) -> None:
    with pytest.raises(AirliftError, match=what):
        fed(layer, 1 << 40, [1 << 20])


BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd,
    "zstd behind a small frame": lambda zeros: zstd(b"small") + zstd(zeros),
    "zstd of unsaid size": lambda zeros: zstd(zeros, said=False),
    "gzip": gzip.compress,
}


@pytest.mark.parametrize("form", BOMBS)
@pytest.mark.usefixtures("quick")
def test_a_signed_bomb_is_refused_and_the_store_stays(
    form: str, craft: Craft, keys: Keys, home: Home
) -> None:
    good = craft(Recipe())
    run_import(good, keys.trust(), home)
    before = everything(home.root)
    bomb = craft(Recipe("1.1.0", 2, app_layer=BOMBS[form](bytes(64 << 20))))
    for path_home in (None, home):
        error = refused(bomb, keys.trust(), path_home)
        assert error.kind is Kind.MANIFEST
        assert "unpacks to more than the" in error.what
        assert "inform the vendor" in error.fix
    with pytest.raises(AirliftError, match="unpacks to more"):
        run_import(bomb, keys.trust(), home)
    assert everything(home.root).keys() >= before.keys()
    assert str(home.current.readlink()) == "releases/1.0.0"
    assert not list(home.releases.glob("1.1.0*"))
    check(good, keys.trust(), home)


@pytest.mark.parametrize("at", [0, 4, 5, 9])
def test_a_layer_that_was_altered_is_no_bomb(at: int, craft: Craft, keys: Keys) -> None:
    """Its header may say anything now: the transport damaged it, not the vendor."""
    layer = zstd(PLAIN)
    bundle = craft(Recipe(app_layer=layer, edit=_roomy))
    check(bundle, keys.trust())
    data = bundle.read_bytes()
    place = data.index(layer) + at
    bundle.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
    assert refused(bundle, keys.trust()).kind is Kind.ALTERED


def _roomy(data: dict[str, Any]) -> None:
    """Use the builder's sizes: these layers are compressed."""
    for component in data["components"].values():
        component["unpacked_size"] += len(PLAIN)


def test_a_bomb_costs_the_verifier_nothing(craft: Craft, keys: Keys, home: Home) -> None:
    """Few bytes promise 8 GB of zeros, in either format."""
    unpacked = 8 << 30
    frame = zstandard.ZstdCompressor(level=1).compressobj(size=unpacked)
    head = frame.compress(bytes(16 << 20))
    assert zstandard.get_frame_parameters(head).content_size == unpacked
    for layer in (head, gzip.compress(bytes(256 << 20), 1)):
        bundle = craft(Recipe(app_layer=layer))
        command = [sys.executable, "-c", VERIFY_AND_TELL_PEAK]
        done = subprocess.run(
            [*command, *arguments("verify", bundle, keys, home)],
            cwd=TREE,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == Kind.MANIFEST.exit_code
        assert int(done.stdout.splitlines()[-1]) < 100_000
