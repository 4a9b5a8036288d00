#!/usr/bin/python
"""Bring any number of containers of a host about in one call.

For each container, it writes directories, secrets and configuration, which the image itself checks
first, and creates the container again if it differs. Then it waits until all are healthy. It ends
at the first container that cannot be created; the caller evaluates unhealthy ones. In check mode it
makes the same comparison, changes nothing, and checks the health once.

It returns for each container that was reached its C(name); C(changed); C(why), what differed;
C(due), whether it differs or is not well; C(replaces), in check mode, whether one that runs now
would be created again; C(problem), why it does not count as running; C(log), its last lines if so;
C(status) and C(output) of one that ran to its end. The action plugin of the same name calls it and
adds the defaults of an entry.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible.module_utils import container_shape as shape
from ansible.module_utils.common.text.converters import to_text
from ansible.module_utils.container_reload import Reload
from ansible.module_utils.container_wait import wait
from ansible.module_utils.engine_client import docker
from ansible.module_utils.engine_containers import Engine, EngineError
from ansible.module_utils.host_module import answer
from ansible.module_utils.host_tools import RefusedError, ids, own, rights_differ
from ansible.module_utils.service_files import run

#: Number of log lines that are shown with an error.
LINES = 30


class Bringing:
    """The work on all containers of one call."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.check_mode: bool = module.check_mode
        self.settings: dict[str, Any] = module.params["settings"]
        self.secrets: dict[str, dict[str, str]] = module.params["secrets"]
        #: By what it is about: files that are compared before they are written count once.
        self.diffs: dict[str, dict[str, str]] = {}
        self.reloads: dict[str, tuple[Reload, dict[str, str]]] = {}
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """Return the engine's connection, which is opened on first use."""
        self._engine = self._engine or Engine()
        return self._engine

    # ------------------------------------------------------------------ files
    def directories(self, one: dict[str, Any], *, check: bool) -> bool:
        """Create the directories that the container writes to; return whether one had to change."""
        wanted = [
            {"path": mount["source"], "owner": one["user"], "mode": mount["create"]}
            for mount in one["mounts"]
            if mount.get("create")
        ]
        wrong = False
        for place in [*wanted, *one["directories"]]:
            path = Path(place["path"])
            rights = ids(place["owner"]), int(place["mode"], 8)
            if path.is_dir() and not rights_differ(path, *rights):
                continue
            wrong = True
            if not check:
                path.mkdir(parents=True, exist_ok=True)
                own(path, *rights)
        return wrong

    def files(self, *, check: bool, **what: Any) -> dict[str, Any]:
        """Make a directory hold exactly the files; return the changed ones and the fingerprint."""
        missing = [path for path in what.get("copies", {}).values() if not Path(path).exists()]
        if missing and check:
            # In check mode the output of earlier steps does not exist yet.
            return {"changed": True, "changed_files": sorted(what["copies"])}
        what["fingerprint_key"] = self.settings["fingerprint_key"]
        done: dict[str, Any] = run(what, check=check)
        if done["changed"] and "diff" in done:
            self.diffs[what["directory"]] = done["diff"]
        return done

    def all_files(self, one: dict[str, Any], *, check: bool) -> tuple[list[str], dict[str, str]]:
        """Put files and secrets in place; return what was not right, and fingerprints of all."""
        configs, secrets = shape.places(one, self.settings)
        why = ["directories"] if self.directories(one, check=check) else []
        parts = []
        reread = (one["reload"] or {}).get("files", ())
        # Secrets first: the check of the configuration may need them.
        if shape.has_secrets(one):
            done = self.files(
                check=check,
                directory=secrets,
                owner=one["user"],
                mode="0400",
                directory_mode="0500",
                secrets=self.secrets.get(one["name"], {}),
                copies=one["secret_files"],
                reread=reread,
            )
            why += [f"secret {name}" for name in done["changed_files"]] or (
                ["rights of the secrets"] if done["changed"] else []
            )
            parts.append(done)
        if one["configs"]:
            done = self.files(
                check=check,
                directory=configs,
                owner="0:0",
                mode="0444",
                directory_mode="0755",
                files=one["configs"],
                validate=shape.check(one, self.settings),
                reread=reread,
            )
            why += done["changed_files"] or (
                ["rights of the configuration"] if done["changed"] else []
            )
            parts.append(done)
        names = [f"fingerprint{which}" for which in ("", "_before", "_fixed", "_before_fixed")]
        # A part without files has no fingerprint to compare.
        return why, {
            name: "-".join(part[name] for part in parts if part.get(name)) for name in names
        }

    # -------------------------------------------------------------- container
    def bring(self, one: dict[str, Any]) -> dict[str, Any]:
        """Apply one container as far as possible without waiting for it."""
        told: dict[str, Any] = {"name": one["name"], "why": [], "problem": "", "log": []}
        try:
            if one["state"] == "absent":
                done = self.engine.converge(shape.absent(one), check_mode=self.check_mode)
                told["why"] = ["removed"] if done["changed"] else []
            elif one["reload"]:
                self.with_reload(one, told)
            else:
                told["why"], prints = self.all_files(one, check=self.check_mode)
                if one["state"] == "once":
                    self.run_once(one, told)
                elif one["state"] == "started":
                    self.start(one, told, prints["fingerprint"])
        except (RefusedError, OSError, ValueError) as error:
            told["problem"] = str(error)
        told["changed"] = bool(told["why"])
        return told

    def start(self, one: dict[str, Any], told: dict[str, Any], fingerprint: str) -> None:
        """Start the container; recreate it if it differs."""
        try:
            parameters = shape.stays(one, self.settings, fingerprint)
            done = self.engine.converge(parameters, check_mode=self.check_mode)
        except EngineError:
            if not self.check_mode:
                raise
            # Check mode on a host that has no engine or not this image yet.
            told["why"].append("created")
            return
        told["replaces"] = any("stopped" in action for action in done.get("actions", ()))
        before, after = done["diff"]["before"], done["diff"]["after"]
        # In check mode, do not report limits that would be set on the running container.
        if not done["changed"] and before == after:
            return
        if after.get("exists"):
            told["why"].append("created")
            return
        # The label changes with the files, and changed files are reported by their names.
        differ = {part for part in (*before, *after) if before.get(part) != after.get(part)}
        differ -= {"labels"} if told["why"] else set()
        told["why"] += sorted("it did not run" if part == "running" else part for part in differ)
        self.diffs[shape.name_of(one)] = {"before": before, "after": after}

    def with_reload(self, one: dict[str, Any], told: dict[str, Any]) -> None:
        """Start a container whose process reads some of its files again; `watch` tells it to."""
        memory = Reload(one, self.settings)
        told["why"], prints = self.all_files(one, check=True)
        if told["why"] and not self.check_mode:
            memory.begin([name.removeprefix("secret ") for name in told["why"]], prints)
            _, prints = self.all_files(one, check=False)
        if self.check_mode and memory.held.get("pending"):
            told["why"].append("not read again yet")
        self.start(one, told, memory.label(prints))
        self.reloads[one["name"]] = (memory, prints)

    def take_up(self, one: dict[str, Any], told: dict[str, Any]) -> None:
        """Let the process of a container that is well read its changed files again."""
        memory, prints = self.reloads[one["name"]]
        if problem := memory.take_up():
            told["problem"] = f"its process does not read its changed files again: {problem}"
            return
        if memory.held.get("pending") and "created" not in told["why"]:
            told["why"].append("reloaded")
            told["changed"] = True
        memory.end(prints)

    def run_once(self, one: dict[str, Any], told: dict[str, Any]) -> None:
        """Run a command to its end; in check mode, report it as a change."""
        if self.check_mode:
            told["why"].append("ran")
            return
        done = self.engine.converge(shape.once(one, self.settings), check_mode=False)
        told["status"] = done.get("status", 0)
        told["output"] = to_text(done.get("container", {}).get("Output", ""), errors="replace")
        told["why"] += ["ran"] if re.search(one["changed_if"], told["output"]) else []
        if told["status"]:
            told["problem"] = told["output"] or f"it ended with code {told['status']}"

    # ------------------------------------------------------------------ health
    def watch(self, one: dict[str, Any], told: dict[str, Any]) -> None:
        """Wait until the container is healthy; in check mode, look once and start nothing."""
        checked = bool(one["healthcheck"])
        healthy = (
            checked if self.check_mode else checked if one["healthy"] is None else one["healthy"]
        )
        probe = one["probe"]
        if not healthy and not probe and not self.check_mode:
            return
        told["problem"], kicked = wait(
            {
                "container": shape.name_of(one),
                "healthy": healthy,
                "url": probe.get("url") or "",
                "status": probe.get("status") or [200],
                "ca": probe.get("ca") or "",
                "seconds": one["wait_seconds"],
                "look": self.check_mode,
            }
        )
        if kicked:
            told["why"].append("started again")
            told["changed"] = True

    def last_lines(self, one: dict[str, Any]) -> list[str]:
        """Return the end of a container's log."""
        try:
            said = docker("logs", "--tail", str(LINES), shape.name_of(one), timeout=60)
        except RefusedError:
            return []
        return (said.stdout + said.stderr).splitlines()[-LINES:] if said.returncode == 0 else []

    def all(self) -> list[dict[str, Any]]:
        """Apply all containers, then wait for all."""
        reached: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for one in self.module.params["wanted"]:
            reached.append((one, self.bring(one)))
            if reached[-1][1]["problem"] and not self.check_mode:
                break
        for one, its in reached:
            if (
                one["state"] == "started"
                and not its["problem"]
                and not (self.check_mode and its["changed"])
            ):
                self.watch(one, its)
                if one["reload"] and not its["problem"] and not self.check_mode:
                    self.take_up(one, its)
            if its["problem"] and one["state"] == "started" and not self.check_mode:
                its["log"] = self.last_lines(one)
            its["due"] = bool(its["changed"] or its["problem"])
        return [its for _, its in reached]


def work(module: Any) -> dict[str, Any]:
    """Bring all about, and tell."""
    bringing = Bringing(module)
    told = bringing.all()
    found = [{**diff, "before_header": name} for name, diff in bringing.diffs.items()]
    diff = {"diff": found} if found else {}
    return {"changed": any(one["changed"] for one in told), "containers": told, **diff}


OPTIONS = {
    # roles/container/meta/argument_specs.yml says what an entry holds.
    "wanted": {"type": "list", "elements": "dict", "required": True},
    # For each container the file names and contents of its secrets.
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    # Directories on the host (services, secrets), and the file with the key of fingerprints.
    "settings": {"type": "dict", "required": True},
}

if __name__ == "__main__":
    answer(work, OPTIONS)
