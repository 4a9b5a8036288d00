"""Thread pools for blocking work, one per kind, so that one kind never delays another.

The event loop has one shared pool, whose size depends on the number of cores. A few slow queries
can fill it, and then a scrape waits for a job. Slow work therefore gets a pool of its own. Work
that may hang for ever (a network mount without its server) gets a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Lane:
    """A pool of a fixed size for one kind of work."""

    def __init__(self, name: str, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread of this lane and return its result or raise its error."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Start no more work; do not wait for running work."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def alone(name: str, work: Callable[[], T]) -> T:
    """Run `work` in a daemon thread of its own, which does not delay the end of the process.

    If the caller stops waiting (deadline, cancelled job), the thread continues without it.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failed: BaseException | None = None
        try:
            result = work()
        except BaseException as error:
            failed = error
        with suppress(RuntimeError):  # the loop is closed, so no caller waits any more
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await outcome
