"""What every source gives: records in batches, and errors that say if trying again may help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Record = dict[str, Any]


class SourceError(Exception):
    """Collecting failed; `code` is stable, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PermanentSourceError(SourceError):
    """It will fail again: a wrong path, an unknown field, a file that cannot be read."""


class RefusedSourceError(PermanentSourceError):
    """It was stopped to protect the site; the job is dead at once, so that the operator sees it."""


class TransientSourceError(SourceError):
    """It may work later: a timeout, a refused connection, a 5xx."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one job may bring in."""

    max_bytes: int
    max_records: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an entry is no record."""

    reason: str


# Where it was (line of a file; number of the entry or row elsewhere, from 1) and what it is.
Entry = tuple[int, Record | Fault]
Batch = list[Entry]


@dataclass(slots=True)
class Collection:
    """What a source gives, a batch at a time, so that no size of source fills the memory.

    `batches` blocks and raises `SourceError`: it is pulled in a thread. `origin` is whole once it
    is exhausted. `foreign` says what is wrong if what was read is in another encoding as a whole.
    """

    batches: Iterator[Batch]
    origin: dict[str, Any]
    foreign: Callable[[], str | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a configuration is not accepted, and the field it is about."""

    field: str
    message: str
    code: str = "source_refused"


EVERYBODY = "*"


class Access:
    """Which clients may use which source.

    A source that is not listed is nobody's if the lists are `closed`, else everybody's.
    """

    def __init__(
        self, clients: Mapping[str, Sequence[str]] | None = None, *, closed: bool = False
    ) -> None:
        self._clients = dict(clients or {})
        self._closed = closed

    def allows(self, source: str, client: str) -> bool:
        """Whether `client` may use `source`, such as `database:crm`."""
        listed = self._clients.get(source)
        if listed is None:
            return not self._closed
        return client in listed or EVERYBODY in listed


class Source(Protocol):
    """What a kind of source can do; the configuration is the kind's own model."""

    def check(self, config: Any, client: str) -> Refusal | None:
        """What is wrong with a configuration, told before a job is recorded."""

    def needs(self, config: Any) -> str | None:
        """What a worker must have, or None if any worker will do."""

    async def available(self) -> list[str]:
        """The needs that this process can meet."""

    async def collect(self, config: Any, client: str) -> Collection:
        """Get at the records; raises `SourceError`."""
