"""The journey's fixtures, for the long proofs on the lab."""

from tests.e2e.conftest import carried, imported, installed, journey, placed, raised

__all__ = ["carried", "imported", "installed", "journey", "placed", "raised"]
