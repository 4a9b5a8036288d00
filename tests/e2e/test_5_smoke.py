"""The smoke test of a site, as an operator or a pipeline runs it."""

from __future__ import annotations

from scripts.journey import Journey, recap


def test_an_installed_site_passes_and_nothing_is_changed(installed: Journey) -> None:
    done = installed.play("smoke", "-e", "swap_smoke_release=1.0.0")
    assert (recap(done.output).changed, recap(done.output).failed) == (0, 0)
    assert "lab serves release 1.0.0 (blue): the smoke test passed" in done.output


def test_another_release_than_the_expected_one_does_not_pass(installed: Journey) -> None:
    done = installed.play("smoke", "-e", "swap_smoke_release=9.9.9", check=False)
    assert done.code == 2
    assert "lab serves release 1.0.0, not 9.9.9" in " ".join(done.output.split())
