"""Threads for what blocks, in lanes: work of one kind never waits behind another kind's.

The event loop has one shared pool whose size follows the machine's cores. A few slow queries fill
it, and then a scrape waits for a job. So what may take long has threads of its own, and what hangs
for good (a network mount without its server) costs the one thread that hangs.
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
        """Do `work` in one of the lane's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Start nothing more; what runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def alone(name: str, work: Callable[[], T]) -> T:
    """Do `work` in a daemon thread of its own, which cannot hold up the end of the process.

    Who stops waiting for it (a deadline, a cancelled job) leaves it behind.
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
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await outcome
