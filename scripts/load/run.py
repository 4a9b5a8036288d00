"""Runs a load in the background of a program."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Self

from scripts.load.options import Options
from scripts.load.report import Log, Result
from scripts.load.traffic import Traffic


class Load:
    """Sends requests from its own thread while the ``with`` block runs.

    At the end of the block no more requests start, those under way are waited for (at most
    ``Options.timeout`` seconds), and ``result`` is there::

        with Load(Options(url, ca=ca, key=key, rate=60)) as load:
            load.phase("steady")
            time.sleep(10)
            load.phase("upgrade")
            upgrade()
        assert load.result.failed == 0, str(load.result)
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._log = Log()
        # A daemon, so that a second Ctrl-C ends the program while requests are in progress.
        self._thread = threading.Thread(target=self._work, name="load", daemon=True)
        self._running = threading.Event()
        self._error: BaseException | None = None
        self._result: Result | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def __enter__(self) -> Self:
        """Start to send requests.

        Raises:
            OSError: The certificate authority cannot be read.
        """
        self._thread.start()
        self._running.wait()
        if self._error is not None:
            raise self._error
        return self

    def phase(self, name: str) -> None:
        """Begin a phase: requests that are due from now on belong to it.

        A name may come again; its parts are added up. Any thread may call it.
        """
        self._log.marks.append((time.monotonic(), name))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, wait for requests in progress, and compute the results."""
        self._log.stopped = time.monotonic()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._result = self._log.result()
        if self._error is not None and error is None:
            raise self._error

    @property
    def result(self) -> Result:
        """Return the results; only after the ``with`` block.

        Raises:
            RuntimeError: The load still runs.
        """
        if self._result is None:
            raise RuntimeError("the load still runs: its result is there after the with block")
        return self._result

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as error:  # it belongs to the thread that started this one
            self._error = error
        finally:
            self._log.cpu = time.thread_time()
            self._running.set()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        traffic = Traffic(self._options, self._log)
        await traffic.run(self._stop, self._running.set)
