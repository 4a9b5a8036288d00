"""The site as its jump host sees it: import, playbooks, what serves."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from scripts.deploy import commands
from scripts.deploy.commands import Done
from scripts.deploy.outcome import DeployError, Outcome
from scripts.deploy.settings import Settings

#: What a site may be in after a deployment; `warning` is also a rollback that would take a minute.
WELL = ("ok", "warning")


@dataclass(frozen=True)
class Status:
    """What status.yml found."""

    verdict: str
    sentence: str
    release: str
    colour: str
    following: str

    def __str__(self) -> str:
        return f"{self.release} ({self.colour})" if self.release else "nothing"


class Site:
    """One site, worked on from its jump host."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = settings.site / ".airlift"

    def check(self) -> None:
        """Refuse a machine that is no jump host of an installed site."""
        current, site = self.settings.current, self.settings.site
        for program in ("python", "ansible-playbook"):
            if not (current / "venv" / "bin" / program).exists():
                raise DeployError(
                    Outcome.SETUP,
                    f"{current} has no imported release",
                    fix="check and import the first bundle by hand: docs/TRUST.md, by hand",
                )
        if not (self.state / "tls" / "ca.pem").is_file():
            raise DeployError(
                Outcome.SETUP,
                f"{site} was not installed from this jump host",
                fix=f"cd {current} && {self.command('install')}",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second deployment of this site away; playbooks have a lock of their own."""
        path = self.state / "deploy.lock"
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DeployError(
                    Outcome.BUSY,
                    f"another deployment works on {self.settings.site.name}",
                    fix=f"wait until it has ended; who it is: fuser {path}",
                ) from error
            yield

    # A release that was brought and has not passed the smoke test yet: which one, and what served
    # before. It outlives this program: a job that was cancelled is started again.
    def remember(self, release: str, before: str) -> None:
        """Note that a release is being brought."""
        path = self.state / "deploy.json"
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps({"release": release, "before": before}), encoding="utf-8")
        draft.replace(path)

    def remembered(self, release: str) -> str:
        """Return what served before a release that was brought and not tried; else nothing."""
        try:
            found = json.loads((self.state / "deploy.json").read_text(encoding="utf-8"))
            return str(found["before"]) if found["release"] == release else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def forget(self) -> None:
        """Note that what serves was tried, or taken back."""
        (self.state / "deploy.json").unlink(missing_ok=True)

    def command(self, playbook: str, *options: str) -> str:
        """Return what a person types to run a playbook."""
        return " ".join(str(word) for word in self._words(playbook, *options))

    def _words(self, playbook: str, *options: str) -> list[str]:
        site, vault = self.settings.site, self.settings.vault_id
        words = ["./venv/bin/ansible-playbook", "-i", str(site), "--vault-id", vault]
        return [*words, f"playbooks/{playbook}.yml", *options]

    def play(self, playbook: str, *options: str, quiet: bool = False) -> Done:
        """Run a playbook of the newest imported release."""
        return commands.run(self._words(playbook, *options), cwd=self.settings.current, quiet=quiet)

    def import_bundle(self) -> dict[str, Any]:
        """Have the installed verifier check and import the bundle; return its answer."""
        bundle = self.settings.bundle_file()
        python = str(self.settings.current / "venv/bin/python")
        argv = [python, "-m", "bundle", "import", "--json"]
        argv += ["--home", str(self.settings.home), str(bundle)]
        if self.settings.signer:
            argv += ["--identity", self.settings.signer]
        # Its progress goes to standard error, and stays there. Run in the directory of the release:
        # from this program's, Python would take a package `bundle` that nobody has signed.
        done = commands.run(argv, cwd=self.settings.current.resolve(), quiet=True, errors=False)
        try:
            answer: dict[str, Any] = json.loads(done.output)
        except ValueError:
            answer = {}
        if done.code != 0 or not answer.get("ok"):
            error = answer.get("error") or {}
            raise DeployError(
                Outcome.IMPORT,
                f"{bundle.name}: {error.get('what') or done.reason} (exit code {done.code})",
                fix=str(error.get("fix") or "docs/TRUST.md says what each exit code means"),
            )
        return answer

    def report(self, name: str, since: float) -> dict[str, Any]:
        """Return what a playbook wrote for machines; one of an earlier run is none."""
        path = self.state / name
        # File systems round times.
        if path.stat().st_mtime < since - 1:
            raise ValueError("it is an older one")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def findings(self, since: float) -> list[str]:
        """Return what preflight found, a sentence each."""
        try:
            errors = self.report("preflight.json", since)["errors"]
            return [f"{one['host']}: {one['fact']} ({one['fix']})" for one in errors]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def status(self) -> Status:
        """Ask the site what serves and how it is."""
        begun = time.time()
        done = self.play("status", quiet=True)
        try:
            found = self.report("status.json", begun)
        except (OSError, ValueError) as error:
            raise DeployError(
                Outcome.SETUP,
                f"the site cannot be asked: {done.reason} (exit code {done.code}; report: {error})",
                fix=f"cd {self.settings.current} && {self.command('status')}",
            ) from error
        commands.say(str(found["sentence"]))
        return Status(
            verdict=str(found["verdict"]),
            sentence=str(found["sentence"]),
            release=str(found["release"] or ""),
            colour=str(found["active"] or ""),
            following=str(found["next"]),
        )
