"""Cache of answers to repeated inputs, in the memory of this process.

A dictionary is faster than a shared cache in Redis. Measured where this was developed: the model
takes 44 µs for a short sentence and a hit here 4 µs. A GET from a Redis on the same machine takes
275 µs of CPU time (500 µs of wall time).

The size is limited in bytes; the least recently used entry is removed first. The key holds the
model's name and version and the input as the model reads it, so another model never gets the
entry.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import NamedTuple

from app.observability import metrics

#: Model's name, its version, and the input as the model reads it.
Key = tuple[str, str, str | tuple[float, ...]]
# Bytes of the dictionary's entry, the tuples and the numbers in them, rounded up.
_ENTRY_BYTES = 400


class Answer(NamedTuple):
    """A cached answer: the label, and the complete answer as JSON."""

    label: str
    body: bytes


class AnswerCache:
    """The cache of one process; `most_bytes` 0 disables it."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
        self._hits = metrics.PREDICT_CACHE.labels("hit")
        self._misses = metrics.PREDICT_CACHE.labels("miss")

    def get(self, key: Key) -> Answer | None:
        """Return the answer kept under `key`, or None."""
        found = self._answers.get(key)
        if found is not None:
            self._answers.move_to_end(key)
        return found

    def count(self, hits: int, misses: int) -> None:
        """Add hits and misses to the metric."""
        if hits:
            self._hits.inc(hits)
        if misses:
            self._misses.inc(misses)

    def put(self, key: Key, answer: Answer) -> None:
        """Keep an answer if it fits; remove the least recently used entries to make room."""
        size = _size(key, answer)
        if size > self._most or key in self._answers:
            return
        self._answers[key] = answer
        self._bytes += size
        while self._bytes > self._most:
            self._bytes -= _size(*self._answers.popitem(last=False))
        metrics.PREDICT_CACHE_BYTES.set(self._bytes)

    def __len__(self) -> int:
        return len(self._answers)


def _size(key: Key, answer: Answer) -> int:
    return sys.getsizeof(key[2]) + sys.getsizeof(answer.body) + _ENTRY_BYTES
