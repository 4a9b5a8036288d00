"""Wake-up messages through Redis Streams: workers start sooner, but no job depends on them.

Postgres is the source of truth. A message only says that a job is due; the worker that reads it
claims any due job. So messages need no acknowledgement and may be lost or duplicated, and workers
also poll every few seconds. Each need has its own stream, so that a message does not wake a worker
that cannot run the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app import failpoints
from app.db.redis import UNAVAILABLE, Command, RedisGate, RedisUnavailableError, connect
from app.flight import Together
from app.observability import metrics
from app.observability.logging import get_logger
from app.settings import Settings

_GROUP = "workers"
_MAX_LENGTH = 10_000
_MOST_AT_ONCE = 1000
log = get_logger("app.jobs.hints")


def stream(needs: str | None) -> str:
    """Return the name of the stream for jobs with this need."""
    return "airlift:jobs" if needs is None else f"airlift:jobs:{needs}"


class HintSender:
    """Sends wake-up messages; it never raises, because a worker finds the job later anyway."""

    def __init__(self, gate: RedisGate) -> None:
        self._gate = gate
        self._hints = Together[Command, bool](self._send, most=_MOST_AT_ONCE)

    async def send(self, job_id: str, needs: str | None = None) -> bool:
        """Tell the workers that a job is due; return False if Redis did not accept it."""
        return await self._hints.ask(
            ("XADD", stream(needs), "MAXLEN", "~", _MAX_LENGTH, "*", "job", job_id)
        )

    async def _send(self, hints: list[Command]) -> list[bool]:
        try:
            await self._gate.run(*hints)
        except RedisUnavailableError as error:
            metrics.HINTS.labels("failed").inc(len(hints))
            log.warning(
                "wake-up message not sent; a worker finds the job when it polls", reason=str(error)
            )
            return [False] * len(hints)
        metrics.HINTS.labels("sent").inc(len(hints))
        return [True] * len(hints)


class HintListener:
    """Waits for wake-up messages; each message wakes one worker of the group."""

    def __init__(self, settings: Settings, consumer: str) -> None:
        self._settings = settings
        self._consumer = consumer
        self._client: Redis | None = None
        self._known: frozenset[str] = frozenset()

    async def wait(self, needs: Sequence[str], seconds: float) -> bool:
        """Wait up to `seconds` for a message; return True if one came."""
        if self._settings.redis_url is None:
            await asyncio.sleep(seconds)
            return False
        streams = [stream(None), *(stream(need) for need in needs)]
        try:
            if self._client is None:
                self._client = connect(
                    self._settings, timeout=seconds + self._settings.redis_timeout_seconds
                )
            await self._ensure(streams)
            answer = await self._client.xreadgroup(
                _GROUP,
                self._consumer,
                dict.fromkeys(streams, ">"),
                count=1,
                block=max(1, int(seconds * 1000)),
                noack=True,
            )
            metrics.DEPENDENCY_UP.labels("redis").set(1)
            if answer:
                failpoints.reached("hint.read")
            return bool(answer)
        except UNAVAILABLE as error:
            # A Redis that lost its data also lost the group; the next call recreates it.
            self._known = frozenset()
            metrics.DEPENDENCY_UP.labels("redis").set(0)
            log.warning(
                "no wake-up messages from Redis; polling Postgres without them",
                reason=type(error).__name__,
            )
            await asyncio.sleep(min(seconds, 1.0))
            return False

    async def _ensure(self, streams: Iterable[str]) -> None:
        wanted = frozenset(streams)
        if self._client is None or wanted == self._known:
            return
        for name in wanted - self._known:
            try:
                await self._client.xgroup_create(name, _GROUP, id="$", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._known = wanted

    async def close(self) -> None:
        """Leave the group and close the connection."""
        if self._client is None:
            return
        for name in self._known:
            with suppress(*UNAVAILABLE):
                await self._client.xgroup_delconsumer(name, _GROUP, self._consumer)
        with suppress(*UNAVAILABLE):
            await self._client.aclose()
