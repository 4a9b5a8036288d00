"""Draining: readiness is 503, no new work starts, running work is finished.

There are two triggers: SIGTERM, and a file (`python -m app drain`). The file removes a process from
load balancing long before it is stopped, while it still accepts connections.
"""

from __future__ import annotations

from pathlib import Path

from app.observability import metrics


class Drain:
    """The drain state of this process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stopping = False

    def start(self) -> None:
        """Start draining because the process is going to end; this is final."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Return whether the process is going to end."""
        return self._stopping

    @property
    def active(self) -> bool:
        """Return whether the process drains, for either reason."""
        active = self._stopping or self._file.exists()
        metrics.DRAINING.set(int(active))
        return active
