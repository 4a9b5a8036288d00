"""Answers to inputs that were seen before, kept in this process.

A dictionary and no Redis: on the machine that this was written on the model took 44 µs for a short
sentence, a hit here 4, and a GET from a Redis on the same machine 275 µs of this process's time
(500 of the clock), so a shared cache would cost more than what it saves. Bounded by bytes, the
least recently used goes first. An entry belongs to a model's name and version and to the input as
the model sees it: a release with other models starts with an empty cache, and never reads
another's.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import NamedTuple

from app.observability import metrics

#: Model's name, its version, and the input as the model sees it.
Key = tuple[str, str, str | tuple[float, ...]]
# The dictionary's own entry, the tuples and the numbers in them; rounded up.
_ENTRY_BYTES = 400


class Answer(NamedTuple):
    """The answer to an input: the label, and the whole answer as JSON."""

    label: str
    body: bytes


class AnswerCache:
    """The cache of one process; `most_bytes` of 0 turns it off."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
        self._hits = metrics.PREDICT_CACHE.labels("hit")
        self._misses = metrics.PREDICT_CACHE.labels("miss")

    def get(self, key: Key) -> Answer | None:
        """What was kept under `key`."""
        found = self._answers.get(key)
        if found is not None:
            self._answers.move_to_end(key)
        return found

    def count(self, hits: int, misses: int) -> None:
        """Count what was found and what was not."""
        if hits:
            self._hits.inc(hits)
        if misses:
            self._misses.inc(misses)

    def put(self, key: Key, answer: Answer) -> None:
        """Keep an answer, if it fits; drop what was not asked for the longest."""
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
