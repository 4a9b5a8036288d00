"""The results of a deployment as exit codes; docs/DEPLOYMENT_STRATEGY.md has the same table."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """A result: its exit code and its meaning."""

    DONE = (0, "done")
    USAGE = (2, "a setting is missing or wrong; nothing was done")
    SETUP = (3, "this is no jump host of an installed site, or the site cannot be asked")
    BUSY = (4, "another deployment works on this site")
    IMPORT = (10, "the bundle was refused; the site was not touched")
    PREFLIGHT = (11, "preflight or the plan found something; the site was not touched")
    UPGRADE = (12, "a gate failed; the summary names the release that serves")
    SMOKE = (13, "the smoke test failed, and nothing was rolled back")
    ROLLED_BACK = (14, "the smoke test failed; the previous release serves again")
    ROLLBACK = (15, "the rollback failed: a person has to look")
    FETCH = (20, "no signed and attested bundle of this release was found")
    NOTIFY = (21, "the notification was not accepted")
    INTERRUPTED = (130, "stopped by a signal; the same command continues")

    def __init__(self, code: int, meaning: str) -> None:
        self.code = code
        self.meaning = meaning

    @property
    def label(self) -> str:
        """Return the name in outputs, such as `rolled-back`."""
        return self.name.lower().replace("_", "-")


class DeployError(Exception):
    """A result other than DONE: problem and fix."""

    def __init__(self, outcome: Outcome, what: str, *, fix: str = "") -> None:
        super().__init__(what)
        self.outcome = outcome
        self.what = what
        self.fix = fix


class Interrupted(BaseException):
    """A signal interrupted this program."""
