"""The jump host is lost: a second one rolls the site back, and the saved state is restored.

The tests are steps of one story. One named part of `make soak`: `make soak-jump`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bundle.errors import Kind
from scripts.journey import HOME, SITE, Journey
from tests.e2e.support import HOSTS
from tests.e2e.upgrades import NO_PREFLIGHT, offer, serving, until_well

LOST = f"{HOME}.lost"
#: In the operator's home, as if on a drive and in a safe.
STATE, PASSPHRASE = "~/jump.state", "~/state.passphrase"
REPORTS = ("status.json", "preflight.json", "keys.turn")

pytestmark = pytest.mark.timeout(2 * 3600)


def state(journey: Journey, *words: str, code: int = 0) -> str:
    """Run `bundle state` as the operator does."""
    command = f"{HOME}/current/venv/bin/python -m bundle state {' '.join(words)}"
    done = journey.lab.ssh(f"{command} --passphrase-file {PASSPHRASE}", check=False)
    assert done.code == code, done.output
    return done.output


def shape(journey: Journey) -> str:
    """Return owner, mode and content of everything in the site's folder but reports."""
    skip = " ".join(f"! -name {name}" for name in REPORTS)
    listed = f"find . {skip} -printf '%M %u %g %p\\n' | sort"
    hashed = f"find . -type f {skip} -exec sha256sum {{}} + | sort"
    return journey.lab.ssh(f"cd {SITE} && {listed} && {hashed}").output


def certificates(journey: Journey) -> list[str]:
    """Return what each host has of the authority."""
    script = "sha256sum /etc/airlift/tls/*"
    return [journey.lab.console(host, script).output for host in HOSTS]


@pytest.fixture(scope="module")
def before() -> dict[str, object]:
    """The state before the jump host was lost."""
    return {}


@pytest.fixture(scope="module")
def saved(installed: Journey, before: dict[str, object]) -> Iterator[Journey]:
    """An upgraded site, whose jump host has saved its state."""
    journey = installed
    offer(journey)
    journey.play("upgrade", *NO_PREFLIGHT)
    made = "import secrets; print(secrets.token_hex(16))"
    journey.lab.ssh(f'umask 077 && python3 -c "{made}" > {PASSPHRASE}')
    assert "read again and compared" in state(journey, "save", STATE)
    assert "lab.vault-password" in state(journey, "show", STATE)
    before["shape"], before["certificates"] = shape(journey), certificates(journey)
    yield journey
    journey.lab.console("jump", f"rm -rf {LOST}")


def test_a_second_jump_host_with_inventory_and_vault_rolls_back(saved: Journey) -> None:
    """It has neither the authority nor the records, and refuses to make new ones unasked."""
    journey = saved
    journey.lab.console(
        "jump",
        f"owner=$(stat -c %U:%G {HOME}) && mv {HOME} {LOST} && mkdir {HOME} && chown $owner {HOME}",
    )
    version = journey.release()["version"]
    journey.read_bundle(journey.dist / f"airlift-{version}-amd64.tar")
    journey.check_by_hand()
    journey.bootstrap()
    journey.read_bundle(next(journey.dist.glob("airlift-1.1.0-since-*.tar")))
    journey.bootstrap()
    # The inventory comes from a working tree, the vault's password from the safe.
    journey.lab.ssh(f"mkdir -p {HOME}/sites && cp -a {LOST}/sites/lab* {HOME}/sites/")
    journey.lab.ssh(f"rm -rf {SITE}/.airlift")

    for verb, options in (("preflight", ()), ("install", ()), ("install", ("--tags", "tls"))):
        done = journey.play(verb, *options, check=False, release="1.1.0")
        assert done.code != 0
        assert "state restore FILE" in " ".join(done.output.split()), done.output[-3000:]
    assert journey.lab.ssh(f"test -e {SITE}/.airlift/tls/ca.key", check=False).code == 1

    journey.play("rollback", release="1.1.0")
    assert serving(journey) == version


def test_the_state_comes_back_and_nothing_changes(
    saved: Journey, before: dict[str, object]
) -> None:
    journey = saved
    # A killed restore leaves no partial state.
    python = f"{HOME}/current/venv/bin/python"
    command = f"{python} -m bundle state restore {STATE} --passphrase-file {PASSPHRASE}"
    journey.lab.ssh(f"timeout --signal KILL 0.6 {command} || :")
    state(journey, "restore", STATE)
    assert shape(journey) == before["shape"]
    assert "was here already" in state(journey, "restore", STATE)

    journey.play("install", release=serving(journey))
    assert certificates(journey) == before["certificates"]
    journey.play("upgrade", release="1.1.0")
    assert serving(journey) == "1.1.0"
    until_well(journey)
    journey.smoke()
    assert certificates(journey) == before["certificates"]


def test_a_living_state_is_not_replaced_in_silence(saved: Journey) -> None:
    journey = saved
    ca = f"{SITE}/.airlift/tls/ca.pem"
    journey.lab.ssh(f"mv {ca} ~/ca.pem && echo another > {ca}")
    said = state(journey, "restore", STATE, "--json", code=Kind.STATE.exit_code)
    assert ".airlift/tls/ca.pem" in json.loads(said)["error"]["what"]
    journey.lab.ssh(f"mv ~/ca.pem {ca}")
