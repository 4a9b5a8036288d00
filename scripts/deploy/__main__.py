"""Run one phase of a deployment, or all of them; the exit code says how it ended."""

from __future__ import annotations

import contextlib
import os
import sys

from scripts.deploy import commands, fetch, notify
from scripts.deploy.outcome import DeployError, Interrupted, Outcome
from scripts.deploy.phases import Deployment
from scripts.deploy.report import Report
from scripts.deploy.settings import NAMES, NEEDED, ON_SITE, Settings

#: Phase: what it does, in the order of a deployment.
PHASES = {
    "run": "import, preflight, upgrade, smoke test; and a rollback when the smoke test fails",
    "import": "verify the bundle and store it on this jump host",
    "preflight": "check every host and make the plan; change nothing",
    "upgrade": "swap the release in, gate by gate",
    "smoke": "ask the site what a client would",
    "rollback": "go back to the previous release",
    "fetch": "get the signed bundle of a release from its build, and check its attestation",
    "notify": "send the results to a webhook",
}


def usage() -> str:
    """Return the help."""
    lines = ["usage: python3 -m scripts.deploy PHASE", "", "phases:"]
    lines += [f"  {name:<10} {about}" for name, about in PHASES.items()]
    lines += ["", "settings (environment variables; * is needed by what works on a site):"]
    for name, about in NAMES.items():
        lines.append(f"  {name + '*' * (name in NEEDED['smoke']):<24} {about}")
    lines += ["", "exit codes:"]
    lines += [f"  {one.code:<4} {one.meaning}" for one in Outcome]
    return "\n".join(lines)


def work(phase: str, settings: Settings, report: Report) -> None:
    """Do what a phase is for."""
    if phase == "fetch":
        fetch.fetch(settings, report)
    elif phase == "notify":
        notify.notify(settings)
    elif phase in ON_SITE:
        deployment = Deployment(settings, report)
        deployment.site.check()
        with deployment.site.locked():
            getattr(deployment, "bring" if phase == "import" else phase)()


def main(words: list[str]) -> int:
    """Run the phase that is named; return the exit code."""
    if len(words) != 1 or words[0] not in PHASES:
        if words in (["-h"], ["--help"]):
            commands.say(usage())
            return Outcome.DONE.code
        print(usage(), file=sys.stderr)
        return Outcome.USAGE.code
    phase = words[0]
    commands.catch_signals()
    title = f"deploy {phase}"
    report = Report(title, Settings({}))
    outcome, problem = Outcome.DONE, None
    try:
        settings = Settings.read(os.environ, phase)
        if phase in ON_SITE:
            title = f"{phase} · {settings.site.name}"
        report = Report(title, settings)
        work(phase, settings, report)
    except DeployError as error:
        outcome, problem = error.outcome, error
        print(f"deploy: {error.what}", file=sys.stderr, flush=True)
    except Interrupted:
        outcome = Outcome.INTERRUPTED
        problem = DeployError(outcome, outcome.meaning, fix=f"python3 -m scripts.deploy {phase}")
    # A second signal while the summary is written changes nothing any more.
    with contextlib.suppress(Interrupted):
        report.finish(outcome, problem)
    return outcome.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
