"""Requests per minute per key, counted in Redis for all processes on all hosts.

The window slides: a request counts for 60 s, at most 65 s because Redis keeps slots of 5 s. So no
minute ever contains more than the limit. Redis's clock decides, so the hosts' clocks do not
matter. Requests that wait at the same time share one script call over one connection: at most one
round trip per request.

While Redis does not answer, requests pass and are counted as unchecked. After a failure there is a
pause, and then one batch at a time checks whether Redis is back.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from app.db.redis import UNAVAILABLE, connect
from app.flight import Together
from app.observability import metrics
from app.observability.logging import get_logger
from app.settings import Settings

# KEYS are the counted names, ARGV their limits, or -1 to return a request. The script returns three
# numbers per key: whether the request is allowed, how many more are allowed at once, and the
# milliseconds until an old request stops counting.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local width, kept = 5000, 12
local slot = math.floor(now / width)
local answer = {}
for n, key in ipairs(KEYS) do
    local used, oldest, gone = 0, slot, {}
    if tonumber(ARGV[n]) < 0 then
        -- What was held is given back; it was taken in this slot, or in the one before.
        for number = slot, slot - 1, -1 do
            if tonumber(redis.call('HGET', key, number) or '0') > 0 then
                redis.call('HINCRBY', key, number, -1)
                break
            end
        end
    end
    local slots = redis.call('HGETALL', key)
    for i = 1, #slots, 2 do
        local number = tonumber(slots[i])
        if number < slot - kept then
            gone[#gone + 1] = slots[i]
        else
            used = used + tonumber(slots[i + 1])
            oldest = math.min(oldest, number)
        end
    end
    local left = tonumber(ARGV[n]) - used
    local allowed = 0
    if left > 0 then
        allowed, left = 1, left - 1
        redis.call('HINCRBY', key, slot, 1)
        redis.call('PEXPIRE', key, (kept + 1) * width)
    end
    if #gone > 0 then
        redis.call('HDEL', key, unpack(gone))
    end
    answer[#answer + 1] = allowed
    answer[#answer + 1] = math.max(left, 0)
    answer[#answer + 1] = (oldest + kept + 1) * width - now
end
return answer
"""
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_REST_SECONDS = 2.0
_SECONDS_BETWEEN_WARNINGS = 30.0
_MOST_AT_ONCE = 128
_GIVE_BACK = -1

log = get_logger("app.ratelimit")


class Verdict(NamedTuple):
    """The limiter's result: of `limit` requests per minute, `remaining` are allowed at once.

    `reset` is the time in seconds until the oldest request of the last minute stops counting.
    """

    allowed: bool
    limit: int
    remaining: int
    reset: int


class _Asked(NamedTuple):
    who: str
    limit: int


class RateLimiter:
    """The limiter of one process."""

    def __init__(self, settings: Settings) -> None:
        self.default = settings.rate_limit_per_min
        self.configured = settings.redis_url is not None
        self._timeout = settings.redis_timeout_seconds
        self._client = connect(settings, timeout=self._timeout) if self.configured else None
        self._asked = Together[_Asked, Verdict | None](self._ask, most=_MOST_AT_ONCE)
        self._well = True
        self._resting_until = 0.0
        self._warned_at = float("-inf")

    async def take(self, who: str, limit: int) -> Verdict | None:
        """Count one request of `who`; return None if Redis does not answer (the request passes)."""
        verdict = await self._say(who, limit)
        outcome = "unchecked" if verdict is None else "allowed" if verdict.allowed else "limited"
        metrics.RATE_LIMIT.labels(outcome).inc()
        return verdict

    @asynccontextmanager
    async def hold(self, who: str, limit: int) -> AsyncIterator[Verdict | None]:
        """Take one request of `who` during an expensive operation, and return it afterwards.

        The verdict's `allowed` says whether to do it; the verdict is None if Redis does not answer.
        """
        verdict = await self._say(who, limit)
        if verdict is not None and not verdict.allowed:
            metrics.RATE_LIMIT.labels("limited").inc()
        try:
            yield verdict
        finally:
            if verdict is not None and verdict.allowed:
                await self._say(who, _GIVE_BACK)

    async def _say(self, who: str, limit: int) -> Verdict | None:
        # While one batch checks whether Redis is back, no other request waits for it.
        if self._client is None or (self._asked.busy and not self._well) or self._resting():
            return None
        return await self._asked.ask(_Asked(who, limit))

    def _resting(self) -> bool:
        return not self._well and time.monotonic() < self._resting_until

    async def _ask(self, batch: list[_Asked]) -> list[Verdict | None]:
        """Return the verdicts of one round trip; None for each if Redis failed or was too slow."""
        unknown: list[Verdict | None] = [None] * len(batch)
        if self._resting():  # the previous batch failed
            return unknown
        arguments = [len(batch), *(asked.who for asked in batch), *(asked.limit for asked in batch)]
        try:
            async with asyncio.timeout(self._timeout):
                numbers = await self._evaluate(arguments)
        except UNAVAILABLE as error:
            self._fail(error)
            return unknown
        if not self._well:
            self._well = True
            log.info("rate limits are on again")
        return [
            Verdict(
                allowed=numbers[3 * number] == 1,
                limit=asked.limit,
                remaining=numbers[3 * number + 1],
                reset=max(1, -(-numbers[3 * number + 2] // 1000)),
            )
            for number, asked in enumerate(batch)
        ]

    async def _evaluate(self, arguments: list[Any]) -> list[int]:
        assert self._client is not None  # noqa: S101 - no request is queued without a client
        try:
            answer = await self._client.execute_command("EVALSHA", _SHA, *arguments)  # type: ignore[no-untyped-call]
        except NoScriptError:
            # A restarted Redis no longer has the script.
            answer = await self._client.execute_command("EVAL", _SCRIPT, *arguments)  # type: ignore[no-untyped-call]
        numbers: list[int] = answer
        return numbers

    def _fail(self, error: Exception) -> None:
        now = time.monotonic()
        self._well = False
        self._resting_until = now + _REST_SECONDS
        if now - self._warned_at >= _SECONDS_BETWEEN_WARNINGS:
            self._warned_at = now
            log.warning("rate limits are off: Redis does not answer", reason=type(error).__name__)

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            with suppress(*UNAVAILABLE):
                await self._client.aclose()


@lru_cache(maxsize=4096)
def address_name(host: str) -> str:
    """Return the counter name of an address; IPv6 counts per /64, a customer's network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "airlift:rate:address:unknown"
    if address.version == 6:
        if address.ipv4_mapped is not None:
            return address_name(str(address.ipv4_mapped))
        network = ipaddress.ip_network((int(address) >> 64 << 64, 64))
        return f"airlift:rate:address:{network.network_address}"
    return f"airlift:rate:address:{address}"


def key_name(key_id: str) -> str:
    """Return the counter name of a key."""
    return f"airlift:rate:key:{key_id}"
