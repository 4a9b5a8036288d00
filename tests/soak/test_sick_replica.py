"""For each kind of sick app host: no request that is sent after five seconds fails."""

from __future__ import annotations

import pytest

from scripts import sick
from scripts.journey import Journey


@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("sickness", sick.SICKNESSES)
def test_nobody_notices_after_five_seconds(installed: Journey, sickness: str) -> None:
    # A slow link carries few requests: an excess of them would be late instead of lost.
    found = sick.measure(installed, sickness, seconds=40, rate=8 if sickness == "slowed" else 40)
    assert found.failed == 0, str(found.result)
    if sickness != "slowed":
        assert found.shown["replicas"][sick.HOST]["state"] == "out"
