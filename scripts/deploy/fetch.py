"""Download the signed bundle of a release from the run that built it; check its attestation.

It needs `gh`, logged in by GH_TOKEN. The jump host then gets the bundle as an artefact.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from scripts.deploy import commands
from scripts.deploy.outcome import DeployError, Outcome
from scripts.deploy.report import Report
from scripts.deploy.settings import Settings

#: The workflow that builds, signs and attests a release.
WORKFLOW = "release.yml"
PAUSE = 20


def missing(what: str, fix: str) -> DeployError:
    """Return the error about a bundle that cannot be found."""
    return DeployError(Outcome.FETCH, what, fix=fix)


def fetch(settings: Settings, report: Report) -> None:
    """Download the release's bundle, its sums and their signatures into DEPLOY_BUNDLE."""
    folder = settings.bundle
    repository, tag = settings.values["DEPLOY_REPOSITORY"], f"v{settings.release}"
    with report.phase("fetch") as row:
        folder.mkdir(parents=True, exist_ok=True)
        run = finished(settings, repository, tag)
        words = ["gh", "run", "download", str(run), "--repo", repository, "--dir", str(folder)]
        done = commands.run(words)
        if done.code != 0:
            raise missing(
                f"cannot download the artefacts of run {run}: {done.reason}",
                f"run {WORKFLOW} for {tag} again: artefacts are kept for a limited time only",
            )
        bundle = attested(folder, settings.release, repository)
        row.note = f"{bundle.name}, built by run {run}"
        report.output("bundle", str(bundle))


def finished(settings: Settings, repository: str, tag: str) -> int:
    """Wait for the build of a tag; return its run."""
    deadline = time.monotonic() + settings.patience
    words = ["gh", "run", "list", "--repo", repository, "--workflow", WORKFLOW]
    words += ["--branch", tag, "--json", "databaseId,status,conclusion,event", "--limit", "20"]
    while True:
        runs = listed(words)
        good = [one for one in runs if one["conclusion"] == "success"]
        if good:
            return int(good[0]["databaseId"])
        if runs and all(one["status"] == "completed" for one in runs):
            raise missing(
                f"{WORKFLOW} did not succeed for {tag}: {runs[0]['conclusion']}",
                f"gh run view {runs[0]['databaseId']} --repo {repository} --log-failed",
            )
        if time.monotonic() >= deadline:
            state = "is still in progress" if runs else "has no run"
            raise missing(
                f"{WORKFLOW} {state} for {tag} after {settings.patience} s",
                f"push the tag {tag}, or wait for its build and run this again",
            )
        time.sleep(min(PAUSE, settings.patience))


def listed(words: list[str]) -> list[dict[str, Any]]:
    """Return the runs of the build, the newest first."""
    done = commands.run(words, quiet=True, errors=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.output)
    except ValueError as error:
        raise missing(f"gh run list: {done.reason}", "gh auth status") from error
    return found


def attested(folder: Path, release: str, repository: str) -> Path:
    """Return the full bundle that the release's workflow attested, and remove all others.

    A site may not have the bases of a delta, and a run may have made other bundles as a test.
    """
    found = [
        path
        for path in sorted(folder.rglob(f"airlift-{release}-*.tar"))
        if "-since-" not in path.name
    ]
    if not found:
        raise missing(f"the build of {release} has no full bundle", f"ls -R {folder}")
    workflow = f"{repository}/.github/workflows/{WORKFLOW}"
    why, good = "", []
    for path in found:
        words = ["gh", "attestation", "verify", str(path), "--repo", repository]
        done = commands.run([*words, "--signer-workflow", workflow])
        if done.code == 0:
            good.append(path)
        else:
            why = f"{path.name} is not attested by {WORKFLOW}: {done.reason}"
            path.unlink()
    if len(good) != 1:
        raise missing(
            why or f"{len(good)} bundles of {release} are attested",
            "do not deploy it; build the release again",
        )
    return good[0]
