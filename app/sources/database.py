"""Databases of the client; none can be registered yet, so every job is refused saying so."""

from __future__ import annotations

from app.sources.base import Collection, PermanentSourceError, Refusal
from app.sources.schemas import DatabaseConfig


class DatabaseSource:
    """The place for registered databases."""

    def check(self, config: DatabaseConfig) -> Refusal | None:
        """No database is registered, whatever its name."""
        return Refusal(
            "source",
            "no such database is registered on this site (known: none)",
            "source_not_registered",
        )

    def needs(self, config: DatabaseConfig) -> str | None:
        """Any worker would do."""
        return None

    def available(self) -> list[str]:
        """Nothing special."""
        return []

    async def collect(self, config: DatabaseConfig) -> Collection:
        """Only reached by a job that was recorded elsewhere."""
        raise PermanentSourceError(
            "source-not-registered", "no database source is registered on this site"
        )
