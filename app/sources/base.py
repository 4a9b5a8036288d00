"""The interface of all sources: batches of records, and errors that say whether to retry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Record = dict[str, Any]


class SourceError(Exception):
    """Collecting failed; `code` is a stable identifier, the message is for readers."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PermanentSourceError(SourceError):
    """A retry would fail again: wrong path, unknown field, unreadable file."""


class RefusedSourceError(PermanentSourceError):
    """The source was blocked to protect the site; the job is dead at once, for the operator."""


class TransientSourceError(SourceError):
    """A retry may succeed: timeout, refused connection, 5xx answer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one job may read: bytes, records, seconds."""

    max_bytes: int
    max_records: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Fault:
    """The reason why an entry is not a record."""

    reason: str


# Position from 1 (line of a file, otherwise number of the entry or row), and the content.
Entry = tuple[int, Record | Fault]
Batch = list[Entry]


@dataclass(slots=True)
class Collection:
    """The records of a source in batches, so that memory does not grow with the source.

    `batches` blocks and raises `SourceError`; read it in a thread. `origin` is complete after the
    last batch. `foreign` returns an error message if all that was read is in another encoding, else
    None.
    """

    batches: Iterator[Batch]
    origin: dict[str, Any]
    foreign: Callable[[], str | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a configuration is not accepted, and the field that is wrong."""

    field: str
    message: str
    code: str = "source_refused"


EVERYBODY = "*"


class Access:
    """The clients that are allowed to use each source.

    A source without a list is available to no client if `closed`, else to all.
    """

    def __init__(
        self, clients: Mapping[str, Sequence[str]] | None = None, *, closed: bool = False
    ) -> None:
        self._clients = dict(clients or {})
        self._closed = closed

    def allows(self, source: str, client: str) -> bool:
        """Return whether `client` is allowed to use `source`, such as `database:crm`."""
        listed = self._clients.get(source)
        if listed is None:
            return not self._closed
        return client in listed or EVERYBODY in listed


class Source(Protocol):
    """A kind of source; the configuration is the kind's own model."""

    def check(self, config: Any, client: str) -> Refusal | None:
        """Return why a configuration is not accepted, before a job is recorded, or None."""

    def needs(self, config: Any) -> str | None:
        """Return what a worker needs for the job, or None if every worker can run it."""

    async def available(self) -> list[str]:
        """Return the needs that this process can meet."""

    async def collect(self, config: Any, client: str) -> Collection:
        """Open the source and return its records; raise `SourceError`."""
