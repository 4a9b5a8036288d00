"""Run one claimed job: collect, process, finish, and renew the lease meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from app import failpoints
from app.db.pool import Database, DatabaseUnavailableError
from app.jobs import repository
from app.jobs.processing import Processor
from app.jobs.repository import Claim
from app.observability import metrics
from app.observability.logging import describe_exception, get_logger
from app.predict.artefacts import Models
from app.settings import Settings
from app.sources.base import PermanentSourceError, RefusedSourceError, Source, SourceError
from app.sources.registry import CONFIGS
from app.threads import alone

log = get_logger("app.worker")
# Renew the lease at least this often: it limits the delay of progress and of cancellation.
_HEARTBEAT_SECONDS = 2.0


@dataclass(slots=True)
class _Progress:
    processed: int = 0
    total: int | None = None


class LeaseLostError(Exception):
    """Another worker may hold the job now, so the results of this one are dropped."""


def full_jitter(attempt: int, base: float, cap: float) -> float:
    """Return a random wait in seconds before the next attempt, with an exponential upper limit."""
    return random.uniform(0, min(cap, base * 2 ** min(attempt, 20)))  # noqa: S311 - not a secret


class Runner:
    """Runs a claimed job to any of its outcomes."""

    def __init__(
        self, settings: Settings, database: Database, sources: dict[str, Source], models: Models
    ) -> None:
        self._settings = settings
        self._database = database
        self._sources = sources
        self._models = models

    async def run(self, held: Claim) -> None:
        """Run one attempt; raise only if cancelled, and then requeue the job."""
        started = time.monotonic()
        with structlog.contextvars.bound_contextvars(
            job_id=str(held.id), client=held.client, request_id=held.request_id
        ):
            log.info("job started", source_type=held.source_type, attempt=held.attempts)
            outcome = "lost"
            try:
                outcome = await self._attempt(held)
            except LeaseLostError:
                outcome = await self._why_lost(held)
            except asyncio.CancelledError:
                outcome = "released"
                failpoints.reached("release.before")
                with suppress(DatabaseUnavailableError):
                    await asyncio.shield(repository.release(self._database, held))
                failpoints.reached("release.after")
                log.warning("job requeued: the worker stops before the job is done")
                raise
            except Exception as error:
                # The sweeper requeues the job for another worker.
                log.error("the outcome of the job cannot be stored", exc_info=error)
            finally:
                seconds = time.monotonic() - started
                metrics.JOBS_FINISHED.labels(held.source_type, outcome).inc()
                metrics.JOB_SECONDS.labels(held.source_type).observe(seconds)
                log.info("job attempt ended", outcome=outcome, duration_ms=round(seconds * 1000))

    async def _attempt(self, held: Claim) -> str:
        progress = _Progress()
        work = asyncio.create_task(self._work(held, progress))
        beat = asyncio.create_task(self._heartbeat(held, progress))
        try:
            await asyncio.wait(
                {work, beat},
                timeout=self._settings.job_timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if beat.done():
                beat.result()
                raise LeaseLostError
            if not work.done():
                message = f"the job took longer than {self._settings.job_timeout_seconds:g} s"
                return await self._again(held, "timeout", message)
            try:
                done = work.result()
            except RefusedSourceError as error:
                return await self._fail(held, "dead", error.code, str(error))
            except PermanentSourceError as error:
                return await self._fail(held, "failed", error.code, str(error))
            except SourceError as error:
                return await self._again(held, error.code, str(error))
            except Exception as error:
                log.error("attempt failed", exc_info=error)
                # The operator reads this with `python -m app jobs`; clients never see it.
                message = f"{type(error).__name__}: {describe_exception(error)}"
                return await self._again(held, repository.INTERNAL, message)
            failpoints.reached("succeed.before")
            await self._persist(
                held,
                "succeeded",
                lambda: repository.succeed(
                    self._database, held, done.result(), progress.processed, done.parts
                ),
            )
            failpoints.reached("succeed.after")
            return "succeeded"
        finally:
            for task in (work, beat):
                task.cancel()
            await asyncio.gather(work, beat, return_exceptions=True)

    async def _work(self, held: Claim, progress: _Progress) -> Processor:
        source = self._sources.get(held.source_type)
        if source is None:
            raise PermanentSourceError(
                "source-unknown", f"this release knows no source {held.source_type}"
            )
        try:
            config = CONFIGS[held.source_type].model_validate(held.config)
        except ValidationError:
            raise PermanentSourceError(
                "bad-config", "the job's configuration does not fit this release"
            ) from None
        collection = await source.collect(config, held.client)
        failpoints.reached("collect.after")
        processor = Processor(self._models, config, collection)
        steps = processor.steps()
        try:
            # Use a thread and steps: a long computation must not delay heartbeats and probes. Each
            # job has its own thread, so that a hanging job does not delay others.
            while (done := await alone("job-step", lambda: next(steps, None))) is not None:
                progress.processed = done
        finally:
            # A running step cannot be closed. It ends soon, and then its source is closed too.
            with suppress(ValueError):
                steps.close()
        records = processor.result()["records"]
        metrics.RECORDS.labels(held.source_type, "collected").inc(records["processed"])
        metrics.RECORDS.labels(held.source_type, "rejected").inc(records["rejected"])
        return processor

    async def _heartbeat(self, held: Claim, progress: _Progress) -> None:
        """Renew the lease until it is lost, then return."""
        lease = self._settings.job_lease_seconds
        last = time.monotonic()
        while True:
            await asyncio.sleep(min(lease / 3, _HEARTBEAT_SECONDS))
            failpoints.reached("heartbeat.before")
            try:
                if not await repository.renew(
                    self._database, held, lease, progress.processed, progress.total
                ):
                    return
                last = time.monotonic()
            except DatabaseUnavailableError:
                # Without an answer the lease may have expired, and another worker may run the job.
                if time.monotonic() - last > lease * 3:
                    return
            failpoints.reached("heartbeat.after")

    async def _again(self, held: Claim, code: str, message: str) -> str:
        if held.attempts >= held.max_attempts:
            return await self._fail(held, "dead", code, message)
        delay = full_jitter(
            held.attempts,
            self._settings.job_backoff_base_seconds,
            self._settings.job_backoff_cap_seconds,
        )
        error = {"code": code, "message": message}
        log.warning("job will be tried again", code=code, delay_seconds=round(delay, 1))
        failpoints.reached("retry.before")
        await self._persist(
            held, "queued", lambda: repository.retry(self._database, held, delay, error)
        )
        failpoints.reached("retry.after")
        return "retried"

    async def _fail(self, held: Claim, state: str, code: str, message: str) -> str:
        error = {"code": code, "message": message}
        log.warning("job failed", state=state, code=code)
        failpoints.reached("end.before")
        await self._persist(held, state, lambda: repository.end(self._database, held, state, error))
        failpoints.reached("end.after")
        return state

    async def _persist(self, held: Claim, state: str, write: Callable[[], Awaitable[bool]]) -> None:
        """Write the end of an attempt; retry until Postgres answers. Fencing makes retries safe."""
        deadline = time.monotonic() + 10 * self._settings.job_lease_seconds
        unsure = False
        while True:
            try:
                if await write():
                    return
                # The connection may have failed during an earlier commit. Then the refusal only
                # means that the end is written already.
                if unsure and await repository.fate(self._database, held) == (state, True):
                    return
                raise LeaseLostError
            except DatabaseUnavailableError:
                unsure = True
                if time.monotonic() > deadline:
                    raise
                log.warning("Postgres is not available; the outcome of the job is stored later")
                await asyncio.sleep(0.5)

    async def _why_lost(self, held: Claim) -> str:
        """Return the outcome of an attempt whose job this worker no longer owns."""
        with suppress(DatabaseUnavailableError):
            fate = await repository.fate(self._database, held)
            if fate is not None and fate[0] == "cancelled":
                log.info("the job was cancelled; the attempt stops")
                return "cancelled"
        log.warning("lease lost; the result is discarded")
        return "lost"
