"""Redis connections, for wake-up messages and rate limits; Postgres is the source of truth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.settings import Settings

UNAVAILABLE = (RedisError, OSError, TimeoutError)
_REST_SECONDS = 2.0
Command = tuple[str | int, ...]


class RedisUnavailableError(Exception):
    """Redis is not available now; callers continue without it."""


def connect(settings: Settings, *, timeout: float) -> Redis:
    """Return a client without retries and with a `timeout` in seconds; it connects on first use."""
    if settings.redis_url is None:
        raise RedisUnavailableError("REDIS_URL is not set")
    options: dict[str, Any] = {}
    if settings.redis_password is not None:
        options["password"] = settings.redis_password.get_secret_value()
    if urlsplit(settings.redis_url).scheme == "rediss":
        options["ssl_cert_reqs"] = "required"
        options["ssl_check_hostname"] = True
        if settings.redis_ca_file is not None:
            options["ssl_ca_certs"] = str(settings.redis_ca_file)
    return Redis.from_url(
        settings.redis_url,
        socket_timeout=timeout,
        socket_connect_timeout=settings.redis_timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=15,
        decode_responses=True,
        client_name="airlift",
        **options,
    )


class RedisGate:
    """A client that pauses after a failure, so that only one request waits for an absent Redis."""

    def __init__(self, settings: Settings) -> None:
        self.configured = settings.redis_url is not None
        self._client = (
            connect(settings, timeout=settings.redis_timeout_seconds) if self.configured else None
        )
        self._resting_until = 0.0

    async def run(self, *commands: Command, rest: bool = True) -> list[Any]:
        """Send commands in one pipeline and return their answers.

        Raise `RedisUnavailableError` on failure, and at once during a pause.
        """
        if self._client is None:
            raise RedisUnavailableError("REDIS_URL is not set")
        if rest and time.monotonic() < self._resting_until:
            raise RedisUnavailableError("Redis did not answer recently; it is tried again soon")
        try:
            answers = await self._send(self._client, commands)
        except UNAVAILABLE as error:
            self._resting_until = time.monotonic() + _REST_SECONDS
            raise RedisUnavailableError(type(error).__name__) from error
        self._resting_until = 0.0
        return answers

    @staticmethod
    async def _send(client: Redis, commands: Sequence[Command]) -> list[Any]:
        async with client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = await pipeline.execute()
        return answers

    async def ping(self) -> None:
        """Check that Redis answers; raise `RedisUnavailableError` if not."""
        await self.run(("PING",), rest=False)

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
