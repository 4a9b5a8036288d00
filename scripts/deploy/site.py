"""The site from its jump host: import, playbooks, active release."""

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

#: Verdicts of a site that is well. `warning` includes a rollback that would take a minute.
WELL = ("ok", "warning")


@dataclass(frozen=True)
class Status:
    """The report of status.yml."""

    verdict: str
    sentence: str
    release: str
    colour: str
    following: str

    def __str__(self) -> str:
        return f"{self.release} ({self.colour})" if self.release else "nothing"


class Site:
    """One site, managed from its jump host."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = settings.site / ".airlift"

    def check(self) -> None:
        """Refuse a machine that is not the jump host of an installed site."""
        current, site = self.settings.current, self.settings.site
        for program in ("python", "ansible-playbook"):
            if not (current / "venv" / "bin" / program).exists():
                raise DeployError(
                    Outcome.SETUP,
                    f"{current} has no imported release",
                    fix="check and import the first bundle by hand, as in docs/TRUST.md",
                )
        if not (self.state / "tls" / "ca.pem").is_file():
            raise DeployError(
                Outcome.SETUP,
                f"{site} was not installed from this jump host",
                fix=f"cd {current} && {self.command('install')}",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock out a second deployment of this site; playbooks have their own lock."""
        path = self.state / "deploy.lock"
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DeployError(
                    Outcome.BUSY,
                    f"another deployment of {self.settings.site.name} is in progress",
                    fix=f"wait until it has ended; to find its process: fuser {path}",
                ) from error
            yield

    # A release that has not passed the smoke test yet, with the previous one. It is kept in a file,
    # because a job that was cancelled is started again.
    def remember(self, release: str, before: str) -> None:
        """Record that the deployment of a release is in progress."""
        path = self.state / "deploy.json"
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps({"release": release, "before": before}), encoding="utf-8")
        draft.replace(path)

    def remembered(self, release: str) -> str:
        """Return the previous release of one that was not tested yet; otherwise ''."""
        try:
            found = json.loads((self.state / "deploy.json").read_text(encoding="utf-8"))
            return str(found["before"]) if found["release"] == release else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def forget(self) -> None:
        """Record that the active release was tested, or rolled back."""
        (self.state / "deploy.json").unlink(missing_ok=True)

    def command(self, playbook: str, *options: str) -> str:
        """Return the command that a person types to run a playbook."""
        return " ".join(str(word) for word in self._words(playbook, *options))

    def _words(self, playbook: str, *options: str) -> list[str]:
        site, vault = self.settings.site, self.settings.vault_id
        words = ["./venv/bin/ansible-playbook", "-i", str(site), "--vault-id", vault]
        return [*words, f"playbooks/{playbook}.yml", *options]

    def play(self, playbook: str, *options: str, quiet: bool = False) -> Done:
        """Run a playbook of the newest imported release."""
        return commands.run(self._words(playbook, *options), cwd=self.settings.current, quiet=quiet)

    def import_bundle(self) -> dict[str, Any]:
        """Check and import the bundle with the installed verifier; return its answer."""
        bundle = self.settings.bundle_file()
        python = str(self.settings.current / "venv/bin/python")
        argv = [python, "-m", "bundle", "import", "--json"]
        argv += ["--home", str(self.settings.home), str(bundle)]
        if self.settings.signer:
            argv += ["--identity", self.settings.signer]
        # Its progress stays on standard error. It runs in the directory of the release, because in
        # this program's directory Python would import an unsigned package `bundle`.
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
                fix=str(error.get("fix") or "see the exit codes in docs/TRUST.md"),
            )
        return answer

    def report(self, name: str, since: float) -> dict[str, Any]:
        """Return the report of a playbook; refuse one of an earlier run."""
        path = self.state / name
        # File systems round times.
        if path.stat().st_mtime < since - 1:
            raise ValueError("it is of an earlier run")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def findings(self, since: float) -> list[str]:
        """Return the problems that preflight found, one sentence each."""
        try:
            errors = self.report("preflight.json", since)["errors"]
            return [f"{one['host']}: {one['fact']} ({one['fix']})" for one in errors]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def status(self) -> Status:
        """Return the site's active release and its state."""
        begun = time.time()
        done = self.play("status", quiet=True)
        try:
            found = self.report("status.json", begun)
        except (OSError, ValueError) as error:
            raise DeployError(
                Outcome.SETUP,
                f"cannot check the site: {done.reason} (exit code {done.code}; report: {error})",
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
