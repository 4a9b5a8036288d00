"""Deploy as a runner on the jump host does, with the same `make` targets and settings.

One named part of `make soak`: `make soak-deploy`. The lab's jump host has no `make`, so the
test gets the commands of a target from `make -n` here.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import tarfile
from dataclasses import dataclass

import pytest

from scripts.deploy.outcome import Outcome
from scripts.journey import HOME, SITE, STICK, VAULT_PASSWORD, Journey
from scripts.lab import ROOT
from tests.e2e.test_4_install import secrets_of
from tests.e2e.upgrades import agent, nothing_is_left_over, serves

pytestmark = pytest.mark.timeout(2 * 3600)

CHECKOUT = "/home/operator/checkout"
#: Passes every gate of an upgrade, and not the smoke test.
BAD = ("bad-late", "1.0.6", 8)


@dataclass(frozen=True)
class Result:
    """How a target ended, and what it reported to the pipeline."""

    code: int
    output: str
    values: dict[str, str]
    summary: str


@dataclass
class Runner:
    """The runner on the jump host: a checkout, and what its job says."""

    journey: Journey
    bundle: str = ""

    def check_out(self) -> None:
        """Copy the part of the tree that the deployment needs, as `actions/checkout` does."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path in [ROOT / "scripts" / "__init__.py", *(ROOT / "scripts/deploy").glob("*.py")]:
                archive.add(path, str(path.relative_to(ROOT)))
        script = f"mkdir -p {CHECKOUT} && tar -C {CHECKOUT} -xf - && chown -R operator: {CHECKOUT}"
        self.journey.lab.send("jump", script, data=packed.getvalue())

    def run(self, target: str, *, before: str = "", **settings: str) -> Result:
        """Run what a target runs, as the operator."""
        said = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
        )
        job = {
            "DEPLOY_SITE": SITE,
            "DEPLOY_VAULT_ID": f"lab@{VAULT_PASSWORD}",
            "DEPLOY_BUNDLE": self.bundle,
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": f"{CHECKOUT}/outputs",
            "GITHUB_STEP_SUMMARY": f"{CHECKOUT}/summary.md",
            **settings,
        }
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in job.items())
        lines = [f"cd {CHECKOUT}", "rm -f outputs summary.md", f"export {exports}"]
        command = f"{before} {said.stdout.strip()}".strip()
        done = self.journey.lab.ssh_stream("\n".join([*lines, command]), what=target, check=False)
        left = self.journey.lab.ssh(f"cat {CHECKOUT}/outputs || :").output.splitlines()
        summary = self.journey.lab.ssh(f"cat {CHECKOUT}/summary.md || :").output
        values = dict(line.split("=", 1) for line in left)
        return Result(done.code, done.output, values, summary)

    def good(self, target: str, **settings: str) -> Result:
        """Run a target that must succeed."""
        done = self.run(target, **settings)
        assert done.code == 0, done.output[-4000:]
        return done

    def carry(self, patch: str, version: str = "", serial: int | None = None) -> None:
        """Build what the site lacks of a release; its bundle is there, as an artefact is."""
        base = self.journey.dist / f"airlift-{self.journey.release()['version']}-amd64.tar"
        self.journey.build(patch=patch, version=version, serial=serial, since=base)
        self.journey.carry()
        self.bundle = f"{STICK}/{self.journey.facts.bundle.name}"


@pytest.fixture(scope="module")
def runner(installed: Journey) -> Runner:
    """A runner beside a site that serves the first release."""
    made = Runner(installed)
    made.check_out()
    if agent(installed, "show")["release"] != "1.0.0":
        made.good("deploy-rollback")
    return made


def highest(journey: Journey) -> int:
    """Return the highest serial that was imported here."""
    words = f"grep -ho '^ \"serial\": [0-9]*' {HOME}/releases/*/manifest.json"
    return max(int(line.split()[1]) for line in journey.lab.ssh(words).output.splitlines())


def test_a_release_that_fails_the_smoke_test_is_taken_back_unseen(runner: Runner) -> None:
    journey = runner.journey
    patch, version, serial = BAD
    if highest(journey) >= serial:
        pytest.skip("a newer release was imported in this lab: raise it again (make lab-down)")
    runner.carry(patch, version, serial)
    with journey.load(12) as load:
        done = runner.run("deploy")
    assert done.code == Outcome.ROLLED_BACK.code, done.output[-4000:]
    assert "GET /model/info answered 500 instead of 200" in done.summary
    assert done.values["release"] == version
    assert done.values["switched"] == "true"
    assert (done.values["outcome"], done.values["rolled_back_to"]) == ("rolled-back", "1.0.0")
    assert agent(journey, "show")["release"] == "1.0.0"
    nothing_is_left_over(journey)
    journey.smoke()
    # The release answers /model/info with 500, which no client of the load asks.
    assert load.result.failed == 0, str(load.result)
    assert {served.split()[1] for served in load.result.total.served} == {"1.0.0", version}


def test_a_release_is_brought_step_by_step_as_a_workflow_does(runner: Runner) -> None:
    journey = runner.journey
    runner.carry("1.1.0")
    with journey.load(12) as load:
        done = runner.good("deploy-import", DEPLOY_RELEASE="1.1.0")
        assert done.values["release"] == "1.1.0"
        runner.good("deploy-preflight", DEPLOY_RELEASE="1.1.0")
        assert agent(journey, "show")["release"] == "1.0.0"
        done = runner.good("deploy-upgrade", DEPLOY_RELEASE="1.1.0")
        assert (done.values["previous"], done.values["switched"]) == ("1.0.0", "true")
        done = runner.good("deploy-smoke", DEPLOY_RELEASE="1.1.0")
        assert "runs release 1.1.0: everything is as it should be" in done.summary
    assert agent(journey, "show")["release"] == "1.1.0"
    nothing_is_left_over(journey)
    assert load.result.failed == 0, str(load.result)


def test_the_whole_again_changes_nothing(runner: Runner) -> None:
    before = agent(runner.journey, "show")
    done = runner.good("deploy", DEPLOY_RELEASE="1.1.0")
    assert done.values["switched"] == "false"
    after = agent(runner.journey, "show")
    assert (after["release"], after["generation"]) == (before["release"], before["generation"])


def test_a_rollback_by_hand_leaves_the_release_that_is_meant_and_no_other(runner: Runner) -> None:
    journey = runner.journey
    done = runner.good("deploy-rollback", DEPLOY_RELEASE="1.2.0")
    assert "not needed: 1.1.0" in done.output
    with journey.load(12) as load:
        done = runner.good("deploy-rollback", DEPLOY_RELEASE="1.1.0")
    assert done.values["rolled_back_to"] == "1.0.0"
    serves(journey, "1.0.0", agent(journey, "show")["active"])
    assert load.result.failed == 0, str(load.result)
    assert "not needed" in runner.good("deploy-rollback", DEPLOY_RELEASE="1.1.0").output


def test_a_job_that_is_cancelled_is_finished_by_the_same_job(runner: Runner) -> None:
    """A signal in the middle of the upgrade, as for a cancelled job or a stopped runner."""
    journey = runner.journey
    with journey.load(12) as load:
        stop = "timeout --preserve-status --signal=TERM 45"
        done = runner.run("deploy-upgrade", before=stop, DEPLOY_RELEASE="1.1.0")
        assert done.code == Outcome.INTERRUPTED.code, done.output[-4000:]
        assert done.values["outcome"] == "interrupted"
        runner.good("deploy-upgrade", DEPLOY_RELEASE="1.1.0")
        runner.good("deploy-smoke", DEPLOY_RELEASE="1.1.0")
    assert agent(journey, "show")["release"] == "1.1.0"
    nothing_is_left_over(journey)
    assert load.result.failed == 0, str(load.result)


def test_no_secret_is_in_what_the_pipeline_keeps(runner: Runner) -> None:
    journey = runner.journey
    done = runner.good("deploy-smoke")
    password = journey.lab.ssh(f"cat {VAULT_PASSWORD}").output.strip()
    secrets = secrets_of(journey)
    assert password in secrets.values()
    for secret in secrets.values():
        assert secret not in done.output + done.summary + json.dumps(done.values)
