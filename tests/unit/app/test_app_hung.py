"""A hung dependency (a network mount, a slow query, a name server) blocks nothing else."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from app.observability import metrics
from app.sources import file as file_source
from app.sources.base import Limits, TransientSourceError
from app.sources.file import FileSource
from app.sources.schemas import FileConfig
from app.threads import Lane, alone

LIMITS = Limits(max_bytes=1000, max_records=10, timeout_seconds=0.2)


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Make each check of a folder named `hung` block in the kernel, on a pipe without a writer."""
    server = threading.Event()
    reading, writing = os.pipe()
    original = Path.is_dir

    def is_dir(path: Path) -> bool:
        if path.name == "hung":
            server.set()
            os.read(reading, 1)
        return original(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    monkeypatch.setattr(file_source, "_LOOK_SECONDS", 0.1)
    yield server
    os.close(writing)


def test_a_hung_root_stops_neither_the_loop_nor_the_other_roots(
    tmp_path: Path, hung: threading.Event
) -> None:
    (tmp_path / "hung").mkdir()
    (tmp_path / "inbox").mkdir()
    source = FileSource({"mount": tmp_path / "hung", "inbox": tmp_path / "inbox"}, LIMITS)

    async def main() -> int:
        turns = 0

        async def beat() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        beats = asyncio.create_task(beat())
        assert await source.available() == ["root:inbox"]
        during = turns
        threads = threading.active_count()
        for _ in range(5):
            assert await source.available() == ["root:inbox"]
        assert threading.active_count() <= threads, "each check of a hung mount starts a thread"
        beats.cancel()
        return during

    assert asyncio.run(main()) > 1
    assert hung.is_set()


def test_a_root_is_there_again_once_its_mount_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(file_source, "_is_dir", lambda _path: answers.wait(30))
    monkeypatch.setattr(file_source, "_LOOK_SECONDS", 0.1)
    source = FileSource({"mount": tmp_path}, LIMITS)

    async def main() -> None:
        assert await source.available() == []
        answers.set()
        # The hung check may still report once; the next one is a new check.
        while not await source.available():
            pass

    asyncio.run(main())


def test_a_file_of_a_hung_mount_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Open a named pipe in blocking mode: the call never returns, as on a hung mount.
    os.mkfifo(tmp_path / "pipe")

    def stuck(*_arguments: object) -> int:
        return os.open(tmp_path / "pipe", os.O_RDONLY)

    monkeypatch.setattr(file_source, "_open_beneath", stuck)
    source = FileSource({"mount": tmp_path}, LIMITS)
    with pytest.raises(TransientSourceError, match="did not answer within"):
        anyio.run(source.collect, FileConfig(root="mount", path="a.csv"), "x")


def test_metrics_do_not_wait_behind_a_full_pool_of_threads() -> None:
    async def main() -> bytes:
        free = threading.Event()
        loop = asyncio.get_running_loop()
        full = [loop.run_in_executor(None, free.wait, 30) for _ in range(64)]
        try:
            return await alone("metrics", metrics.render)
        finally:
            free.set()
            await asyncio.gather(*full)

    assert b"app_requests_total" in asyncio.run(main())


def test_an_error_of_work_in_a_thread_of_its_own_reaches_who_waits() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(alone("fails", fail))


def test_a_lane_runs_no_more_at_once_than_its_size() -> None:
    running = most = 0

    def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        running -= 1

    async def main() -> None:
        lane = Lane("test", 1)
        await asyncio.gather(*(lane.run(work) for _ in range(20)))
        lane.close()

    asyncio.run(main())
    assert most == 1
