"""A changed setting of a serving site takes effect through the other colour; no request fails."""

from __future__ import annotations

from scripts.journey import Journey
from tests.e2e.upgrades import APP_HOSTS, agent, nothing_is_left_over, serves, services, set_score


def test_a_setting_there_and_back_under_load(installed: Journey) -> None:
    """`make soak-settings` has the rest: uploads, passwords, certificates, kills, one app host."""
    before = agent(installed, "show")["active"]
    with installed.load(30) as load:
        set_score(installed, 0.25)
        done = installed.play("install")
        assert "keeps serving until the switch" in done.output
        changed = agent(installed, "show")["active"]
        assert changed != before
        # The first release has no previous release that could be the standby.
        for host in APP_HOSTS:
            there = {name for name in services(installed, host) if name.startswith(("app", "work"))}
            assert there == {f"app-{changed}", f"worker-{changed}"}
        set_score(installed, None)
        installed.play("install")
    assert load.result.failed == 0, str(load.result)
    assert {one.split()[0] for one in load.result.total.served} == {before, changed}
    serves(installed, "1.0.0", before)
    nothing_is_left_over(installed)
