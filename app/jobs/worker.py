"""The worker process: claims jobs, runs several at a time, sweeps, and stops in order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI

from app import failpoints
from app.db.pool import Database, DatabaseUnavailableError
from app.db.redis import RedisGate
from app.http import health
from app.http.drain import Drain
from app.http.health import Health
from app.jobs import repository
from app.jobs.concurrency import Concurrency
from app.jobs.hints import HintListener
from app.jobs.runner import Runner
from app.jobs.upkeep import Sweeper
from app.jobs.watch import QueueWatch
from app.listening import addresses, bound
from app.observability import logging as app_logging
from app.observability import metrics
from app.observability.logging import get_logger
from app.predict.artefacts import load_models
from app.settings import Settings
from app.sources import registry

log = get_logger("app.worker")


class Worker:
    """One worker process; its tasks share one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = f"{settings.host_name}-{settings.colour}-{os.getpid()}"
        self.models = load_models(settings.models_dir)
        self.drain = Drain(settings.drain_file)
        self.database = Database(settings, application=f"airlift-worker-{settings.colour}")
        self.redis = RedisGate(settings)
        self._sources = registry.build(settings)
        self._runner = Runner(settings, self.database, self._sources, self.models)
        self._listener = HintListener(settings, self.name)
        self.queue = QueueWatch(self.database, settings.queue_age_degraded_seconds)
        self._sweeper = Sweeper(settings, self.database, self.queue)
        self._concurrency = Concurrency(
            settings.worker_concurrency_min,
            settings.worker_concurrency_max,
            settings.worker_queue_age_seconds,
        )
        self._room = asyncio.Event()
        self._stop = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Claim no more jobs and end after those in progress."""
        self.drain.start()
        self._stop.set()

    async def run(self) -> None:
        """Run until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        hosts = addresses(self.settings.listen_networks)
        sockets = bound(hosts, self.settings.worker_metrics_port)
        await self.database.open()
        server = _Server(_http_app(self))
        background = [
            asyncio.create_task(server.serve(sockets)),
            asyncio.create_task(self._sweep()),
            asyncio.create_task(self._adapt()),
        ]
        intake = asyncio.create_task(self._take_in())
        log.info(
            "worker started",
            name=self.name,
            concurrency_min=self.settings.worker_concurrency_min,
            concurrency_max=self.settings.worker_concurrency_max,
        )
        try:
            # A task that ends early is a fault (such as a port in use); the process ends with it.
            await asyncio.wait({intake, *background}, return_when=asyncio.FIRST_COMPLETED)
            for task in background:
                if task.done() and not self._stop.is_set():
                    task.result()
                    raise RuntimeError("the worker's HTTP server ended")
            await intake
            await self._finish_running()
        finally:
            self._stop.set()
            intake.cancel()
            server.should_exit = True
            for task in background[1:]:
                task.cancel()
            await asyncio.gather(intake, *background, return_exceptions=True)
            await self._listener.close()
            await self.redis.close()
            await self.database.close()
            log.info("worker ended")

    async def _take_in(self) -> None:
        """Claim jobs while slots are free; wait for wake-up messages while no job is due."""
        while not self._stop.is_set():
            if self.drain.active:
                await self._pause(0.5)
                continue
            if len(self._running) >= self._concurrency.limit:
                await self._wait_for_room()
                continue
            try:
                available = await self._available()
                failpoints.reached("claim.before")
                held = await repository.claim(
                    self.database,
                    owner=self.name,
                    lease_seconds=self.settings.job_lease_seconds,
                    available=available,
                )
            except Exception as error:
                # Without Postgres, or before its tables exist, the worker keeps running.
                reason = str(error) if isinstance(error, DatabaseUnavailableError) else repr(error)
                log.warning("no job can be claimed", reason=reason[:300])
                await self._pause(1.0)
                continue
            if held is None:
                await self._wait_for_hint(available)
                continue
            failpoints.reached("claim.after")
            task = asyncio.create_task(self._runner.run(held))
            self._running.add(task)
            metrics.WORKER_RUNNING.set(len(self._running))
            task.add_done_callback(self._ended)

    async def _available(self) -> list[str]:
        """Return the needs that this worker can meet now."""
        found = [await source.available() for source in self._sources.values()]
        return sorted({need for needs in found for need in needs})

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        metrics.WORKER_RUNNING.set(len(self._running))
        self._room.set()

    async def _wait_for_room(self) -> None:
        """Wait until a job ends, the limit grows, or the worker is told to stop."""
        self._room.clear()
        room, stop = (asyncio.create_task(event.wait()) for event in (self._room, self._stop))
        await asyncio.wait({room, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in (room, stop):
            task.cancel()

    async def _adapt(self) -> None:
        """Adapt the number of concurrent jobs to the age of the queue."""
        every = min(1.0, self.settings.worker_queue_age_seconds)
        while True:
            await asyncio.sleep(every)
            try:
                waited = await repository.due_seconds(self.database, await self._available())
            except Exception as error:
                log.debug("the age of the queue cannot be read", reason=repr(error)[:300])
                continue
            if self._concurrency.adapt(waited, len(self._running)):
                self._room.set()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _wait_for_hint(self, available: list[str]) -> None:
        hint = asyncio.create_task(
            self._listener.wait(available, self.settings.worker_poll_seconds)
        )
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({hint, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in (hint, stop):
            task.cancel()
        await asyncio.gather(hint, stop, return_exceptions=True)

    async def _finish_running(self) -> None:
        if not self._running:
            return
        log.info("finishing jobs in flight", count=len(self._running))
        _done, late = await asyncio.wait(
            set(self._running), timeout=self.settings.worker_drain_seconds
        )
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _sweep(self) -> None:
        """Sweep periodically; a failed round is repeated by the next."""
        while True:
            try:
                await self._sweeper.sweep()
            except DatabaseUnavailableError:
                pass  # the claiming task reports this already
            except Exception as error:
                log.error("sweeping failed", exc_info=error)
            await asyncio.sleep(self._sweeper.interval)


class _Server(uvicorn.Server):
    """The HTTP server for probes and metrics; the worker handles signals itself."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _http_app(worker: Worker) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.include_router(health.router)
    app.state.health = Health(
        worker.settings,
        worker.drain,
        worker.database,
        worker.redis,
        worker.models,
        queue=worker.queue.finding,
    )
    return app


def run(settings: Settings) -> None:
    """Run a worker until it is told to stop."""
    app_logging.configure(
        settings.log_level, service="worker", release=settings.release, colour=settings.colour
    )
    import uvloop  # noqa: PLC0415 - only this command needs it

    async def main() -> None:
        worker = Worker(settings)
        metrics.BUILD_INFO.labels(settings.release, settings.revision, settings.colour).set(1)
        for kind in registry.CONFIGS:
            # Create the counters at zero, so that the first dead job shows as an increase.
            metrics.JOBS_FINISHED.labels(kind, "dead")
        await worker.run()

    uvloop.run(main())
