"""Interrupted checks fail: a bundle is valid only if all its members were hashed."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import AirliftError, Kind
from bundle.format import tar
from bundle.jumphost.store import Home
from bundle.verify import checks
from tests.unit.bundle.bundlekit import Keys, Recipe, check, refused, run_import

Craft = Callable[[Recipe], Path]

LARGE = random.Random(3).randbytes(3 * checks.BUFFER)


@pytest.fixture
def bundle(craft: Craft) -> Path:
    """Return a bundle with one member of several buffers and small ones."""
    return craft(Recipe(files={"packages/debian-13/a.deb": LARGE}))


@pytest.fixture
def altered(bundle: Path) -> Path:
    """Return the same bundle with one bit of the large member changed."""
    raw = bundle.read_bytes()
    place = raw.index(LARGE) + len(LARGE) // 2
    bundle.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    return bundle


def no_memory(*_: object) -> Any:
    raise MemoryError


@pytest.mark.usefixtures("quick")
def test_workers_without_memory_pass_nothing(
    altered: Path, keys: Keys, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "bytearray", no_memory, raising=False)
    error = refused(altered, keys.trust())
    assert error.kind is Kind.UNREADABLE
    assert "the check ended early (MemoryError): 0 of " in error.what
    with pytest.raises(AirliftError, match="the check ended early"):
        run_import(altered, keys.trust(), home)
    assert not home.current.exists()


@pytest.mark.parametrize("death", [MemoryError, SystemExit, RuntimeError, GeneratorExit])
def test_memory_that_ends_in_the_middle_passes_nothing(
    altered: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch, death: type[BaseException]
) -> None:
    class Digest:
        def update(self, _: object) -> None:
            raise death

    monkeypatch.setattr(hashlib, "sha256", Digest)
    with pytest.raises(AirliftError, match="the check ended early"), _opened(altered) as opened:
        checks.check_members(opened)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_thread_that_is_gone_without_a_word_passes_nothing(
    altered: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The thread ends as if killed by the kernel, and loses its work."""
    real = checks._Pool._check_run
    runs: list[object] = []

    def dying(self: checks._Pool, run: Any, buffer: memoryview) -> None:
        runs.append(run)
        if len(runs) > after:
            return
        real(self, run, buffer)

    monkeypatch.setattr(checks._Pool, "_check_run", dying)
    error = refused(altered, keys.trust())
    assert "a thread ended before its work" in error.what or error.kind is Kind.ALTERED


def test_no_thread_can_be_started(
    bundle: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: object) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", start)
    error = refused(bundle, keys.trust())
    assert "the check ended early (can't start new thread)" in error.what


def test_one_thread_is_enough(bundle: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start
    started: list[Any] = []

    def start(thread: Any) -> None:
        if started:
            message = "can't start new thread"
            raise RuntimeError(message)
        started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert check(bundle, keys.trust()).verdict is not None


def test_short_reads_pass_what_is_good_and_nothing_else(
    bundle: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tar.Source.readinto
    monkeypatch.setattr(tar.Source, "readinto", lambda self, at, view: real(self, at, view[:4099]))
    assert check(bundle, keys.trust()).verdict is not None
    raw = bundle.read_bytes()
    place = raw.index(LARGE)
    bundle.write_bytes(raw[:place] + b"?" + raw[place + 1 :])
    assert refused(bundle, keys.trust()).kind is Kind.ALTERED


def test_a_file_that_shrinks_meanwhile_is_refused(
    bundle: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tar.Source.readinto
    reads: list[int] = []

    def shrinking(self: tar.Source, at: int, view: memoryview) -> int:
        reads.append(at)
        if len(reads) == 3:
            os.truncate(bundle, bundle.stat().st_size // 2)
        return real(self, at, view)

    with _opened(bundle, keys) as opened:
        monkeypatch.setattr(tar.Source, "readinto", shrinking)
        with pytest.raises(AirliftError) as caught:
            checks.check_members(opened)
    assert caught.value.kind is Kind.UNREADABLE


def _opened(path: Path, keys: Keys | None = None) -> Any:
    return checks.opened(path, trust=keys.trust() if keys else None, home=None)
