"""What every source gives: records, and errors that say whether trying again may help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

Record = dict[str, Any]


class SourceError(Exception):
    """Collecting failed; `code` is stable, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PermanentSourceError(SourceError):
    """It will fail again: a wrong path, a refused address, a file that cannot be read."""


class TransientSourceError(SourceError):
    """It may work later: a timeout, a refused connection, a 5xx."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one job may bring in."""

    max_bytes: int
    max_records: int
    timeout_seconds: float


@dataclass(slots=True)
class Collection:
    """What a source gave."""

    records: list[Record]
    origin: dict[str, Any] = field(default_factory=dict)
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a configuration is not accepted, and the field it is about."""

    field: str
    message: str
    code: str = "source_refused"


class Source(Protocol):
    """What a kind of source can do; the configuration is the kind's own model."""

    def check(self, config: Any) -> Refusal | None:
        """What is wrong with a configuration, told before a job is recorded."""

    def needs(self, config: Any) -> str | None:
        """What a worker must have, or None if any worker will do."""

    def available(self) -> list[str]:
        """The needs that this process can meet."""

    async def collect(self, config: Any) -> Collection:
        """Get the records; raises `SourceError`."""
