"""Clients whose uploads take long: requests that a switch must wait for."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from types import TracebackType

from scripts.journey import EDGE, Journey

#: Pieces of one upload; Nginx gives up on a client that is silent for half a minute.
PIECES = 50


class Uploads:
    """Starts an upload every few seconds, for a ``with`` block; waits for all at its end.

    ``seconds`` is how long each takes, ``every`` the time between two starts. ``answers`` has the
    status of each, or the error in words.
    """

    def __init__(self, journey: Journey, *, seconds: float = 100, every: float = 5) -> None:
        self.seconds, self.every = seconds, every
        self.answers: list[int | str] = []
        self._context = ssl.create_default_context(cafile=str(journey.cache / "ca.pem"))
        self._key = (journey.cache / "api-key").read_text().strip()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def _one(self) -> None:
        host = EDGE.removeprefix("https://")
        connection = http.client.HTTPSConnection(host, context=self._context, timeout=60)
        text = "what a wonderful day. " * 200
        body = json.dumps({"items": [{"text": text}] * 10}).encode()
        step = len(body) // PIECES + 1
        try:
            connection.putrequest("POST", "/predict/batch")
            connection.putheader("X-API-Key", self._key)
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            for begin in range(0, len(body), step):
                connection.send(body[begin : begin + step])
                time.sleep(self.seconds / PIECES)
            answer = connection.getresponse()
            answer.read()
            self.answers.append(answer.status)
        except (OSError, http.client.HTTPException) as error:
            self.answers.append(repr(error))
        finally:
            connection.close()

    def _start(self) -> None:
        while not self._over.is_set():
            thread = threading.Thread(target=self._one)
            thread.start()
            self._threads.append(thread)
            self._over.wait(self.every)

    def __enter__(self) -> Uploads:
        self._starter = threading.Thread(target=self._start)
        self._starter.start()
        # So that some are well on their way.
        time.sleep(2 * self.every)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._starter.join()
        for thread in self._threads:
            thread.join()
