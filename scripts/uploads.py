"""Clients whose uploads take long: requests that a switch must wait for."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from scripts.journey import EDGE, Journey

#: Pieces of one upload; Nginx gives up on a client that is silent for half a minute.
PIECES = 50
#: Seconds between the starts of two uploads.
EVERY = 5.0


@contextmanager
def uploads(journey: Journey, *, seconds: float = 100) -> Iterator[list[int | str]]:
    """Start an upload every few seconds; each takes `seconds`, and all are waited for at the end.

    Yields the status of each that has ended, or its error in words.
    """
    context = ssl.create_default_context(cafile=str(journey.cache / "ca.pem"))
    headers = {"X-API-Key": (journey.cache / "api-key").read_text().strip()}
    headers["Content-Type"] = "application/json"
    body = json.dumps({"items": [{"text": "what a wonderful day. " * 200}] * 10}).encode()
    headers["Content-Length"] = str(len(body))
    step = len(body) // PIECES + 1
    answers: list[int | str] = []
    over = threading.Event()

    def pieces() -> Iterator[bytes]:
        for begin in range(0, len(body), step):
            yield body[begin : begin + step]
            time.sleep(seconds / PIECES)

    def upload() -> None:
        host = EDGE.removeprefix("https://")
        connection = http.client.HTTPSConnection(host, context=context, timeout=60)
        try:
            connection.request("POST", "/predict/batch", pieces(), headers)
            answers.append(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            answers.append(repr(error))
        finally:
            connection.close()

    def start(pool: ThreadPoolExecutor) -> None:
        while not over.is_set():
            pool.submit(upload)
            over.wait(EVERY)

    with ThreadPoolExecutor(int(seconds / EVERY) + 10) as pool:
        pool.submit(start, pool)
        try:
            # So that some are well on their way.
            time.sleep(2 * EVERY)
            yield answers
        finally:
            over.set()
