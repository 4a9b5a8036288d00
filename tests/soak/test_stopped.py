"""More bad releases under load; tests/e2e has one for each gate."""

from __future__ import annotations

import pytest

from scripts.journey import Journey
from scripts.lab import Done
from scripts.load import Load
from tests.e2e.test_7_bad_releases import (
    Bad,
    load,
    test_it_is_stopped_with_one_clear_sentence,
    test_the_database_is_as_before,
    test_the_old_colour_serves_and_nothing_is_left,
    upgrade,
)

__all__ = [
    "load",
    "test_it_is_stopped_with_one_clear_sentence",
    "test_the_database_is_as_before",
    "test_the_old_colour_serves_and_nothing_is_left",
]

BAD = [
    Bad(
        "bad-start",
        "1.0.1",
        3,
        "colour",
        ("airlift-app-green does not stay up: Error: this build has no licence",),
    ),
    Bad(
        "bad-identity",
        "1.0.3",
        5,
        "colour",
        ("answers as release 1.0.0, colour green, where release 1.0.3, colour green should",),
    ),
]


@pytest.fixture(scope="module", params=BAD, ids=lambda bad: bad.patch)
def stopped(request: pytest.FixtureRequest, installed: Journey, load: Load) -> tuple[Bad, Done]:
    """A site that was asked to upgrade to a bad release."""
    return request.param, upgrade(installed, load, request.param)
