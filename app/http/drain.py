"""Draining: readiness is 503, no new work starts, running work is finished.

Two ways lead there: SIGTERM, and a file (`python -m app drain`) that takes a process out of the
balance while its listener still lives, long before anything is stopped.
"""

from __future__ import annotations

from pathlib import Path

from app.observability import metrics


class Drain:
    """Whether this process drains."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stopping = False

    def start(self) -> None:
        """Drain for good: the process is going to end."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether the process is going to end."""
        return self._stopping

    @property
    def active(self) -> bool:
        """Whether no new work should come here."""
        active = self._stopping or self._file.exists()
        metrics.DRAINING.set(int(active))
        return active
