"""The phases of a deployment. Each converges: if it runs again, it changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from scripts.deploy import commands
from scripts.deploy.outcome import DeployError, Outcome
from scripts.deploy.report import Report
from scripts.deploy.settings import Settings
from scripts.deploy.site import WELL, Site, Status

#: Seconds between two checks of a site that settles.
PAUSE = 10


@dataclass
class Deployment:
    """One run of one or more phases."""

    settings: Settings
    report: Report
    site: Site = field(init=False)
    #: The release to deploy; an import sets it.
    release: str = ""
    #: Whether this run changed the active release.
    switched: bool = False

    def __post_init__(self) -> None:
        self.site = Site(self.settings)
        self.release = self.settings.release

    def run(self) -> None:
        """Run all phases; roll back if the new release fails the smoke test."""
        self.bring()
        self.preflight()
        self.upgrade()
        try:
            self.smoke()
        except DeployError as error:
            if not self.switched:
                raise
            self.rollback()
            fix = "fix the release and give it a new version and serial"
            raise DeployError(Outcome.ROLLED_BACK, error.what, fix=fix) from error

    def bring(self) -> None:
        """Verify and import the bundle."""
        with self.report.phase("import") as row:
            answer = self.site.import_bundle()
            if self.release and answer["version"] != self.release:
                raise DeployError(
                    Outcome.IMPORT,
                    f"the bundle is of release {answer['version']}, not {self.release}",
                    fix="set DEPLOY_BUNDLE and DEPLOY_RELEASE to the same release",
                )
            self.release = answer["version"]
            row.note = f"release {self.release}, serial {answer['serial']}"
            if answer["already_imported"]:
                row.note += ", was imported before"
            self.report.output("release", self.release)

    def preflight(self) -> None:
        """Check the site, then plan the upgrade; change nothing."""
        with self.report.phase("preflight") as row:
            for words in (("preflight",), ("upgrade", "--check", "--skip-tags", "preflight")):
                begun = time.time()
                done = self.site.play(*words)
                if done.code != 0:
                    found = "; ".join(self.site.findings(begun)) or done.reason
                    raise DeployError(
                        Outcome.PREFLIGHT,
                        f"{words[0]}.yml{' --check' * (len(words) > 1)}: {found}",
                        fix=f"cd {self.settings.current} && {self.site.command(*words)}",
                    )
            row.note = "no problems found"

    def upgrade(self) -> None:
        """Activate the release; if a gate fails, the site keeps or restores the previous one."""
        with self.report.phase("upgrade") as row:
            before = self.site.status()
            if not before.release:
                raise DeployError(Outcome.SETUP, before.sentence, fix=before.following)
            previous = before.release
            if self.release and before.release == self.release:
                # A run that was interrupted, or failed the smoke test, may have activated it.
                previous = self.site.remembered(self.release) or before.release
            elif self.release:
                self.site.remember(self.release, before.release)
            done = self.site.play("upgrade")
            after = self.site.status()
            self.switched = after.release != previous
            self.report.output("previous", previous)
            self.report.output("switched", str(self.switched).lower())
            if done.code != 0:
                raise DeployError(
                    Outcome.UPGRADE,
                    f"{done.reason}; {self.settings.site.name} serves {after}",
                    fix=after.following,
                )
            self._serves(after, Outcome.UPGRADE)
            self.release = after.release
            row.note = f"{previous} to {after}" if self.switched else f"{after} served before"

    def smoke(self, outcome: Outcome = Outcome.SMOKE) -> None:
        """Send the requests of a client to the site, and wait until its status is well."""
        with self.report.phase("smoke") as row:
            options = ["-e", f"swap_smoke_release={self.release}"] if self.release else []
            done = self.site.play("smoke", *options)
            if done.code != 0:
                raise DeployError(
                    outcome,
                    f"smoke.yml: {done.reason}",
                    fix=f"cd {self.settings.current} && {self.site.command('smoke')}",
                )
            row.note = self._settled(outcome).sentence
        self.site.forget()

    def _settled(self, outcome: Outcome) -> Status:
        """Return a status that is well, which may need some scrapes after the switch."""
        deadline = time.monotonic() + self.settings.settle
        while (found := self.site.status()).verdict not in WELL:
            if time.monotonic() >= deadline:
                raise DeployError(outcome, found.sentence, fix=found.following)
            time.sleep(min(PAUSE, self.settings.settle))
        return found

    def rollback(self) -> None:
        """Go back to the previous release; if a release is set, only from that one."""
        with self.report.phase("rollback") as row:
            before = self.site.status()
            # The same command continues an interrupted rollback.
            unfinished = "playbooks/rollback.yml" in before.following.partition(",")[0]
            if self.release and before.release != self.release and not unfinished:
                row.note = f"not needed: {before} serves, not {self.release}"
                self.release = before.release
                commands.say(row.note)
                return
            done = self.site.play("rollback")
            after = self.site.status()
            if done.code != 0 or after.release == self.release != "":
                raise DeployError(
                    Outcome.ROLLBACK,
                    f"{done.reason}; {self.settings.site.name} serves {after}",
                    fix=after.following,
                )
            row.note = f"{before} to {after}"
            self.release = after.release
            self.report.output("rolled_back_to", after.release)
        self.smoke(Outcome.ROLLBACK)

    def _serves(self, found: Status, outcome: Outcome) -> None:
        if self.release and found.release != self.release:
            raise DeployError(
                outcome,
                f"{self.settings.site.name} serves {found}, not {self.release}",
                fix=found.following,
            )
