"""Keeps the queue's metrics fresh, so that a scrape touches no dependency."""

from __future__ import annotations

import asyncio

from app.db.pool import Database, DatabaseUnavailableError
from app.jobs import repository
from app.observability import metrics
from app.observability.logging import get_logger

log = get_logger("app.jobs.watch")


async def look(database: Database) -> None:
    """Measure the queue once."""
    try:
        state = await repository.queue_state(database)
    except DatabaseUnavailableError:
        metrics.DEPENDENCY_UP.labels("postgres").set(0)
        return
    metrics.DEPENDENCY_UP.labels("postgres").set(1)
    metrics.JOBS.labels("queued").set(state.queued)
    metrics.JOBS.labels("running").set(state.running)
    metrics.JOBS.labels("dead").set(state.dead)
    metrics.QUEUE_AGE.set(state.oldest_seconds)


async def watch(database: Database, seconds: float = 10.0) -> None:
    """Measure the queue again and again, until cancelled."""
    while True:
        try:
            await look(database)
        except Exception as error:  # a missing table while the migrations run, for example
            log.warning("the queue cannot be measured", exc_info=error)
        await asyncio.sleep(seconds)
