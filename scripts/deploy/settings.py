"""What a deployment is told, by environment variables, and whether it makes sense."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.deploy.outcome import DeployError, Outcome

PREFIX = "DEPLOY_"
#: SemVer, as bundle/release.yml has it.
VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")
#: Name: what it is. The document's table is held to this by a test.
NAMES = {
    "DEPLOY_SITE": "folder of the site's inventory, such as /opt/airlift/sites/acme",
    "DEPLOY_VAULT_ID": "LABEL@FILE: label of the site's vault, and the file with its password",
    "DEPLOY_BUNDLE": "the bundle, or a folder with exactly one",
    "DEPLOY_RELEASE": "the version to bring, or to go back from",
    "DEPLOY_HOME": "where Airlift is on the jump host; /opt/airlift",
    "DEPLOY_SIGNER": "accept this signer only; default: everyone in the kept list",
    "DEPLOY_SETTLE_SECONDS": "how long status may need to become well; 60",
    "DEPLOY_SUMMARY": "a Markdown file to add the summary to; default: GITHUB_STEP_SUMMARY",
    "DEPLOY_OUTPUT": "a file to add NAME=VALUE lines to; default: GITHUB_OUTPUT",
    "DEPLOY_REPOSITORY": "OWNER/NAME to fetch a bundle from; default: GITHUB_REPOSITORY",
    "DEPLOY_PATIENCE_SECONDS": "how long to wait for the bundle's build; 3600",
    "DEPLOY_WEBHOOK_FILE": "file with the address that notifications go to; empty: none",
    "DEPLOY_RESULTS": "JSON: job to its result, for the notification",
    "DEPLOY_LINK": "a link for the notification, to the run",
}
#: Phase: the settings that it cannot do without.
NEEDED = {
    "run": ("DEPLOY_SITE", "DEPLOY_VAULT_ID", "DEPLOY_BUNDLE"),
    "import": ("DEPLOY_SITE", "DEPLOY_VAULT_ID", "DEPLOY_BUNDLE"),
    "preflight": ("DEPLOY_SITE", "DEPLOY_VAULT_ID"),
    "upgrade": ("DEPLOY_SITE", "DEPLOY_VAULT_ID"),
    "smoke": ("DEPLOY_SITE", "DEPLOY_VAULT_ID"),
    "rollback": ("DEPLOY_SITE", "DEPLOY_VAULT_ID"),
    "fetch": ("DEPLOY_RELEASE", "DEPLOY_BUNDLE", "DEPLOY_REPOSITORY"),
    "notify": ("DEPLOY_RESULTS",),
}
#: Phases that work on a site, from its jump host.
ON_SITE = tuple(phase for phase, needed in NEEDED.items() if "DEPLOY_SITE" in needed)


def wrong(what: str, fix: str) -> DeployError:
    """Return the refusal of a setting."""
    return DeployError(Outcome.USAGE, what, fix=fix)


@dataclass(frozen=True)
class Settings:
    """The settings of one run. An empty variable is one that is not set: CI systems pass those."""

    values: Mapping[str, str]
    #: Inside of GitHub Actions, whose log folds groups and obeys commands.
    actions: bool = False

    @classmethod
    def read(cls, environment: Mapping[str, str], phase: str) -> Settings:
        """Check what the environment says for a phase, before anything is done."""
        given = {
            name: value.strip()
            for name, value in environment.items()
            if name.startswith(PREFIX) and value.strip()
        }
        if unknown := sorted(set(given) - set(NAMES)):
            raise wrong(
                f"there is no setting {', '.join(unknown)}",
                f"correct the name; known are {', '.join(NAMES)}",
            )
        for name, source in (
            ("DEPLOY_SUMMARY", "GITHUB_STEP_SUMMARY"),
            ("DEPLOY_OUTPUT", "GITHUB_OUTPUT"),
            ("DEPLOY_REPOSITORY", "GITHUB_REPOSITORY"),
        ):
            if environment.get(source):
                given.setdefault(name, environment[source])
        for name in NEEDED[phase]:
            if name not in given:
                raise wrong(f"{name} is not set: {NAMES[name]}", f"export {name}=…")
        made = cls(given, actions=environment.get("GITHUB_ACTIONS") == "true")
        made.check(phase)
        return made

    def check(self, phase: str) -> None:
        """Refuse what cannot be meant."""
        if self.release and not VERSION.fullmatch(self.release):
            raise wrong(
                f"DEPLOY_RELEASE is {self.release!r}, which is no version of a release",
                "name one, such as 1.1.0: a moving name such as `latest` is never deployed",
            )
        for name in ("DEPLOY_SETTLE_SECONDS", "DEPLOY_PATIENCE_SECONDS"):
            if not re.fullmatch(r"\d{1,5}", self.values.get(name, "0")):
                raise wrong(f"{name} is {self.values[name]!r}", "give whole seconds, such as 60")
        if phase in ON_SITE:
            self._check_vault()
            if not (self.site / "hosts.yml").is_file():
                raise wrong(
                    f"{self.site} is no inventory of a site: it has no hosts.yml",
                    "set DEPLOY_SITE to a folder such as /opt/airlift/sites/acme",
                )

    def _check_vault(self) -> None:
        label, _, file = self.vault_id.partition("@")
        if not label or not file or file == "prompt":
            raise wrong(
                f"DEPLOY_VAULT_ID is {self.vault_id!r}: nobody is there to type a password",
                "set it to LABEL@FILE; the file holds the vault's password",
            )
        path = Path(file)
        if not path.is_file():
            raise wrong(f"{path}, the vault's password, is not there", f"ls -l {path}")
        mode = path.stat().st_mode
        # A program that prints the password may be read by others.
        if not mode & 0o111 and mode & 0o077:
            raise wrong(f"others may read {path}, the vault's password", f"chmod 600 {path}")

    def bundle_file(self) -> Path:
        """Return the bundle; of a folder, the only one in it."""
        path = self.bundle
        if not path.is_dir():
            if not path.is_file():
                raise wrong(f"{path} is not there", "set DEPLOY_BUNDLE to the bundle")
            return path
        found = sorted(path.rglob("airlift-*.tar"))
        if self.release:
            found = [one for one in found if one.name.startswith(f"airlift-{self.release}-")]
        if len(found) != 1:
            names = ", ".join(one.name for one in found) or "none"
            raise wrong(
                f"{path} has to hold exactly one bundle, and holds {names}",
                "set DEPLOY_BUNDLE to the file",
            )
        return found[0]

    @property
    def site(self) -> Path:
        """The site's inventory."""
        return Path(self.values["DEPLOY_SITE"]).absolute()

    @property
    def vault_id(self) -> str:
        """The label of the site's vault, and the file with its password."""
        return self.values["DEPLOY_VAULT_ID"]

    @property
    def bundle(self) -> Path:
        """The bundle, or its folder."""
        return Path(self.values["DEPLOY_BUNDLE"]).absolute()

    @property
    def release(self) -> str:
        """The version that is meant; empty when it was not said."""
        return self.values.get("DEPLOY_RELEASE", "").removeprefix("v")

    @property
    def home(self) -> Path:
        """Where Airlift is."""
        return Path(self.values.get("DEPLOY_HOME", "/opt/airlift"))

    @property
    def current(self) -> Path:
        """The newest imported release, whose playbooks are run."""
        return self.home / "current"

    @property
    def signer(self) -> str:
        """The only signer to be accepted; empty for everyone in the kept list."""
        return self.values.get("DEPLOY_SIGNER", "")

    @property
    def settle(self) -> int:
        """Seconds that status may need."""
        return int(self.values.get("DEPLOY_SETTLE_SECONDS", "60"))

    @property
    def patience(self) -> int:
        """Seconds to wait for the build of a bundle."""
        return int(self.values.get("DEPLOY_PATIENCE_SECONDS", "3600"))

    def file(self, name: str) -> Path | None:
        """Return the path that a setting names, or None."""
        return Path(self.values[name]) if name in self.values else None
