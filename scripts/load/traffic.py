"""The requests of a load: when each is due, its content, and whether its answer is right."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from scripts.load.connection import Client, Connection
from scripts.load.options import Options
from scripts.load.relay import Relay
from scripts.load.report import Failure, Log, Record
from scripts.load.wire import Answer, AnswerError

_SLOW_PARTS = 20
_TEXT = "The delivery was quick and the support was friendly."
_JOB = {"source_type": "file", "config": {"root": "inbox", "path": "demo.csv"}}


@dataclass(frozen=True)
class _Kind:
    line: str
    wanted: int


_KINDS = {
    "item": _Kind("POST /items", 201),
    "slow": _Kind("POST /items", 201),
    "predict": _Kind("POST /predict", 200),
    "ready": _Kind("GET /health/ready", 200),
    "root": _Kind("GET /", 200),
    "job": _Kind("POST /api/v1/jobs/trigger", 202),
}


@dataclass
class _Clock:
    """The times and kinds of requests: the first at once, then one per interval."""

    first: float
    interval: float
    weights: Mapping[str, float]
    count: int = 0

    @property
    def due(self) -> float:
        return self.first + self.count * self.interval


class Traffic:
    """Sends requests when they are due, and records their results."""

    def __init__(self, options: Options, log: Log) -> None:
        self._options = options
        self._context = options.context()
        self._log = log
        self._sent = 0
        self._random = random.Random()  # noqa: S311 - nothing secret
        self._clients: list[Client] = []
        self._shares: list[float] = []

    async def run(self, stop: asyncio.Event, started: Callable[[], None]) -> None:
        """Send until ``stop``, whose time is in the log, then wait for requests in progress.

        The wait is bounded, because each request is.
        """
        options, loop = self._options, asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            relay = await stack.enter_async_context(Relay(options.address, delay=options.delay))
            self._add_clients(options.address, 1 - options.far, far=False)
            self._add_clients(relay.address, options.far, far=True)
            stack.push_async_callback(self._close)
            self._log.begin(loop.time())
            started()
            async with asyncio.TaskGroup() as group:
                clocks = [_Clock(loop.time(), 1 / options.rate, options.weights)]
                if options.slow_every > 0:
                    clocks.append(_Clock(loop.time(), options.slow_every, {"slow": 1}))
                ticking = [group.create_task(self._arrivals(group, clock)) for clock in clocks]
                await stop.wait()
                for task, clock in zip(ticking, clocks, strict=True):
                    task.cancel()
                    # Requests that were due before the end are sent, even if this is late.
                    self._start(group, clock)

    def _add_clients(self, address: tuple[str, int], share: float, *, far: bool) -> None:
        options = self._options
        halves = [2.0**-number for number in range(options.clients)]
        for half in halves if share > 0 else ():
            name = options.address[0]
            self._clients.append(Client(address, context=self._context, name=name, far=far))
            self._shares.append(share * half / sum(halves))

    async def _close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients))

    async def _arrivals(self, group: asyncio.TaskGroup, clock: _Clock) -> None:
        """Start each request when it is due, without waiting for earlier ones."""
        loop = asyncio.get_running_loop()
        while True:
            self._start(group, clock)
            await asyncio.sleep(clock.due - loop.time())

    def _start(self, group: asyncio.TaskGroup, clock: _Clock) -> None:
        now = min(asyncio.get_running_loop().time(), self._log.stopped)
        while (due := clock.due) <= now:
            (kind,) = self._random.choices(tuple(clock.weights), tuple(clock.weights.values()))
            (client,) = self._random.choices(self._clients, self._shares)
            group.create_task(self._send(due, kind, client))
            clock.count += 1

    async def _send(self, due: float, kind: str, client: Client) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._sent += 1
        name = f"load-{self._log.run}-{self._sent}"
        head, parts, pause = self._request(kind, name)
        connection: Connection | None = None
        answer: Answer | None = None
        said: dict[str, Any] = {}
        age, served = 0.0, 0
        try:
            async with asyncio.timeout(self._options.timeout) as limit:
                connection = await client.connection()
                age, served = loop.time() - connection.opened, connection.served
                answer = await connection.exchange(head, parts, pause=pause)
            said, error = self._judge(kind, name, answer)
            client.give_back(connection)
        except AnswerError as problem:
            error = str(problem)
        except OSError as problem:
            error = f"cannot connect: {type(problem).__name__}: {problem}"
            if isinstance(problem, TimeoutError) and limit.expired():
                error = f"no answer in {self._options.timeout:g} s"
        if answer is None and connection is not None:
            connection.abort()
        record = Record(
            due=due,
            late=began - due,
            kind=kind,
            far=client.far,
            latency=loop.time() - due,
            ok=not error,
            colour=str(said.get("colour", "")),
            release=str(said.get("release", "")),
            opened=math.inf if connection is None else connection.opened,
        )
        failure = error and Failure(
            kind=kind,
            far=client.far,
            time=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            second=due - self._log.start,
            phase="",
            latency=record.latency,
            status=answer.status if answer is not None else None,
            error=error,
            connection_age=age,
            served_before=served,
            request_id=answer.headers.get("x-request-id", name) if answer is not None else name,
        )
        self._log.add(record, failure or None)

    def _request(self, kind: str, name: str) -> tuple[bytes, Sequence[bytes], float]:
        """Return the part to send at once, the parts that follow, and the seconds before each."""
        options = self._options
        body = b""
        if kind in ("item", "slow"):
            self._log.attempted_items.add(name)
            body = json.dumps({"name": name}).encode()
        elif kind == "predict":
            body = json.dumps({"text": _TEXT}).encode()
        elif kind == "job":
            body = json.dumps(_JOB).encode()
        # The edge keeps a request id that it is given: a lost request can be found in its log.
        lines = [f"{_KINDS[kind].line} HTTP/1.1", f"Host: {options.authority}"]
        lines += ["User-Agent: airlift-load", f"X-Request-ID: {name}"]
        lines += [f"X-API-Key: {options.key}"] if options.key else []
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        head = "\r\n".join([*lines, "", ""]).encode()
        if kind != "slow":
            return head + body, (), 0
        length = -(-len(body) // _SLOW_PARTS)
        parts = [body[at : at + length] for at in range(0, len(body), length)]
        return head, parts, options.slow_seconds / len(parts)

    def _judge(self, kind: str, name: str, answer: Answer) -> tuple[dict[str, Any], str]:
        """Return the content of the answer, and its problem or ""."""
        try:
            said = json.loads(answer.body)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            said = {}
        if answer.status != _KINDS[kind].wanted:
            text = answer.body[:200].decode(errors="replace")
            return said, f"HTTP {answer.status}, not {_KINDS[kind].wanted}: {text}"
        if kind in ("item", "slow"):
            self._log.accepted_items.add(name)
            if said.get("name") != name:
                return said, f"the answer is for another item: {said.get('name')!r}"
        if kind == "job":
            if not isinstance(said.get("job_id"), str):
                return said, "the answer names no job"
            self._log.accepted_jobs.append(said["job_id"])
        return said, ""
