"""A site that an older tree installed is upgraded to this tree under load, and rolled back.

The older tree builds its own bundle and installs its own site, with its own scripts. REV names it;
`scripts/releases.py` has the default. One named part of `make soak`:

    make soak-from [REV=...]
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from scripts.bench_commands import times
from scripts.journey import Journey, recap
from scripts.lab import ROOT
from scripts.releases import older_tree
from tests.e2e.support import HOSTS
from tests.e2e.upgrades import agent, nothing_is_left_over, serves, until_well

pytestmark = pytest.mark.timeout(2 * 3600)

RATE = 12
#: Where keys and bundles of this proof are, apart from those of the demo.
CACHE = ROOT / ".cache" / "from"
#: Container: why this tree's first install after the upgrade recreates it. Whatever is not here
#: stays, whichever tree installed it.
RECREATED: dict[str, str] = {
    "airlift-postgres": "room for four app hosts",
    "airlift-redis": "an account by which it reads its certificate again",
}
CONTAINERS = "docker ps --no-trunc --format '{{.Names}} {{.ID}}'"
Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Site:
    """The site, and the releases of both trees."""

    journey: Journey
    old: str
    new: str

    def under_load(self, verb: str, record: Record, *, release: str = "") -> int:
        """Run a playbook while clients send requests; return how much it changed."""
        with self.journey.load(RATE) as load:
            # With enough verbosity that each task reports what it changed.
            done = self.journey.play(verb, "-v", release=release)
        found, changed = load.result, recap(done.output).changed
        record("requests", found.sent)
        record("failed", found.failed)
        record("changed", changed)
        record("what changed", ", ".join(changes(done.output)) if verb == "install" else "")
        assert found.sent > 0
        assert found.failed == 0, str(found)
        return changed

    def serves(self, release: str) -> None:
        """Check that a release serves, that no remains exist, and that status finds no problem."""
        serves(self.journey, release, agent(self.journey, "show")["active"])
        nothing_is_left_over(self.journey)
        self.journey.smoke()
        until_well(self.journey)

    def containers(self) -> dict[str, str]:
        """Return the identity of every container of the site."""
        return {
            f"{host} {line.split()[0]}": line.split()[1]
            for host in HOSTS
            for line in self.journey.lab.console(host, CONTAINERS).output.splitlines()
        }


def changes(output: str) -> list[str]:
    """Return the tasks of a play that changed something."""
    task, found = "", []
    for line in output.partition("PLAY RECAP")[0].splitlines():
        if begun := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*?)\]", line):
            task = begun[1]
        elif line.startswith("changed:") and task not in found:
            found.append(task)
    return found


def version_above(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, int]:
    """Return version and serial for this tree's bundle, which must be above the older tree's."""

    def parts(version: str) -> tuple[int, ...]:
        return tuple(map(int, version.partition("-")[0].split(".")))

    major, minor, patch = parts(old["version"])
    newer = parts(new["version"]) > (major, minor, patch)
    version = new["version"] if newer else f"{major}.{minor}.{patch + 1}"
    return version, max(new["serial"], old["serial"] + 1)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Site:
    """The older tree's site, with this tree's release imported beside it."""
    if len({item.path for item in request.session.items}) > 1:
        pytest.skip("it takes the lab from the others: make soak-from")
    journey: Journey = request.getfixturevalue("journey")
    older = older_tree(os.environ.get("REV", ""))
    times(older, CACHE, "five", "install", listen=journey.listen)
    journey.cache, journey.dist = CACHE, CACHE / "dist"
    of_old = yaml.safe_load((older / "bundle/release.yml").read_text())
    first = journey.dist / f"airlift-{of_old['version']}-amd64.tar"
    version, serial = version_above(of_old, journey.release())
    # A delta, to test that this tree's bundle can be based on the older tree's.
    journey.build(version=version, serial=serial, since=first)
    journey.carry()
    journey.bootstrap()
    journey.fetch_access()
    return Site(journey, of_old["version"], version)


def test_it_upgrades_to_this_tree_under_load(site: Site, record_property: Record) -> None:
    site.serves(site.old)
    site.under_load("upgrade", record_property)
    site.serves(site.new)


def test_install_recreates_no_container_that_the_older_tree_made(
    site: Site, record_property: Record
) -> None:
    """The first installation changes what an upgrade does not; the page lists it."""
    before = site.containers()
    site.under_load("install", record_property, release=site.new)
    after = site.containers()
    recreated = {name.split()[1] for name in before if after.get(name) != before[name]}
    assert recreated <= set(RECREATED)
    site.serves(site.new)


def test_install_again_changes_nothing(site: Site, record_property: Record) -> None:
    before = site.containers()
    assert site.under_load("install", record_property, release=site.new) == 0
    assert site.containers() == before


def test_it_rolls_back_under_load(site: Site, record_property: Record) -> None:
    site.under_load("rollback", record_property)
    site.serves(site.old)


def test_it_goes_forward_again_under_load(site: Site, record_property: Record) -> None:
    site.under_load("upgrade", record_property)
    site.serves(site.new)
