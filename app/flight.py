"""Work that is done once, or together, for all who ask for it at the same time.

Nothing is kept: an outcome belongs to those who asked while the work ran, so none of them gets
one that was complete before they asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
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
    """Asks for all who wait at the same time, `most` of them in one batch, one batch at a time."""

    def __init__(
        self, ask: Callable[[list[Q]], Coroutine[Any, Any, Sequence[T]]], most: int
    ) -> None:
        self._ask = ask
        self._most = most
        self._waiting: list[tuple[Q, asyncio.Future[T]]] = []
        self._sender: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a batch is being asked for."""
        return self._sender is not None

    async def ask(self, question: Q) -> T:
        """The answer to this question, or the error of the batch that it was in."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        return await answer

    async def _send(self) -> None:
        batch: list[tuple[Q, asyncio.Future[T]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._settle(batch)
        finally:
            self._sender = None
            # Whatever went wrong, nobody is left waiting.
            for _, answer in (*batch, *self._waiting):
                answer.cancel()
            self._waiting.clear()

    async def _settle(self, batch: list[tuple[Q, asyncio.Future[T]]]) -> None:
        try:
            answers = await self._ask([question for question, _ in batch])
        except Exception as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for (_, answer), outcome in zip(batch, answers, strict=True):
                if not answer.done():
                    answer.set_result(outcome)
