"""Share one operation, or one batch, between concurrent identical requests.

Results are not kept: only callers that wait while the operation runs share its result, so no caller
gets a result that was complete before its call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
Q = TypeVar("Q")
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Running operations by key; concurrent callers with one key share one operation."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[T]] = {}

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the operation that runs for `key`; start `work` if none runs."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(work())
            task.add_done_callback(lambda task: self._ended(key, task))
        # One cancelled waiter must not cancel the shared task.
        return await asyncio.shield(task)

    def _ended(self, key: K, task: asyncio.Task[T]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # retrieved here in case no caller waits any more


class Together(Generic[Q, T]):
    """Batches questions of concurrent callers: up to `most` per batch, one batch at a time."""

    def __init__(
        self, ask: Callable[[list[Q]], Coroutine[Any, Any, Sequence[T]]], most: int
    ) -> None:
        self._ask = ask
        self._most = most
        self._waiting: list[tuple[Q, asyncio.Future[T]]] = []
        self._sender: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Return whether a batch is in progress."""
        return self._sender is not None

    async def ask(self, question: Q) -> T:
        """Return the answer to `question`; raise the error of the batch that holds it."""
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
            # On any failure, cancel the remaining callers: none of them may wait for ever.
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
