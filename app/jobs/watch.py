"""Measure the queue periodically, so that scrapes and probes query no dependency."""

from __future__ import annotations

import asyncio

from app.db.pool import Database, DatabaseUnavailableError
from app.jobs import repository
from app.observability import metrics
from app.observability.logging import get_logger

log = get_logger("app.jobs.watch")


class QueueWatch:
    """The result of the last measurement of the queue."""

    def __init__(self, database: Database, degraded_seconds: float) -> None:
        self._database = database
        self._degraded_seconds = degraded_seconds
        self._age = 0.0

    def finding(self) -> str | None:
        """Return the problem of the queue for readiness, or None."""
        if self._age < self._degraded_seconds:
            return None
        return f"a job has been due for {self._age:.0f} s and no worker has started it"

    async def look(self) -> None:
        """Measure the queue once."""
        try:
            state = await repository.queue_state(self._database)
        except DatabaseUnavailableError:
            metrics.DEPENDENCY_UP.labels("postgres").set(0)
            raise
        metrics.DEPENDENCY_UP.labels("postgres").set(1)
        metrics.JOBS.labels("queued").set(state.queued)
        metrics.JOBS.labels("running").set(state.running)
        metrics.JOBS.labels("dead").set(state.dead)
        metrics.QUEUE_AGE.set(state.oldest_seconds)
        self._age = state.oldest_seconds

    async def watch(self, seconds: float = 5.0) -> None:
        """Measure the queue periodically until cancelled."""
        while True:
            try:
                await self.look()
            except DatabaseUnavailableError:
                pass  # the metric of the dependency reports it
            except Exception as error:  # for example a missing table during migrations
                log.warning("the queue cannot be measured", exc_info=error)
            await asyncio.sleep(seconds)
