"""The journey's fixtures for the long tests on the lab, and their pages in docs/proofs."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import carried, imported, installed, journey, placed, raised
from tests.proofs import write_pages

__all__ = ["carried", "imported", "installed", "journey", "placed", "raised"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the pages of what was tried."""
    write_pages(terminalreporter, "soak")
