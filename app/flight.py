"""Work that is done once, or together, for all who ask for it at the same time.

Nothing is kept: an outcome belongs to those who asked while the work ran, so none of them gets
one that was complete before they asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
Q = TypeVar("Q")
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """The work that runs now, by what it is for."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[T]] = {}

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of the work that runs for `key`, or of `work` if none does."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(work())
            task.add_done_callback(lambda task: self._ended(key, task))
        # Whoever gives up waiting does not take the outcome from the others.
        return await asyncio.shield(task)

    def _ended(self, key: K, task: asyncio.Task[T]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen here, if nobody waits for it any more


class Together(Generic[Q, T]):
    """Asks for all who wait at the same time in one batch, one batch after the other."""

    def __init__(self, ask: Callable[[list[Q]], Coroutine[Any, Any, T]]) -> None:
        self._ask = ask
        self._waiting: list[Q] = []
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def ask(self, question: Q) -> T:
        """What came of the batch with this question in it."""
        self._waiting.append(question)
        if self._next is None:
            self._next = asyncio.create_task(self._send(self._running))
        return await asyncio.shield(self._next)

    async def _send(self, before: asyncio.Task[T] | None) -> T:
        try:
            if before is not None and not before.done():
                await asyncio.wait({before})
        finally:
            batch, self._waiting = self._waiting, []
            self._running, self._next = self._next, None
        return await self._ask(batch)
