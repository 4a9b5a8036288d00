"""Files that a running process reads again when it is told to, so that a change does not end it.

A container's label tells whether it was started with the files that it needs. Of one with such
files, the label says what all files were at its start, and a small file on the host which part of
them must still be so. The same file says, before a changed file is written, that the process has
yet to be told: a run that is killed in between is finished by the next.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils import container_shape as shape
from ansible.module_utils.engine_client import docker
from ansible.module_utils.engine_socket import EngineError
from ansible.module_utils.host_tools import flush_directory, replace


class Reload:
    """What one container was started with, and whether its process has to read files again."""

    def __init__(self, one: dict[str, Any], settings: dict[str, Any]) -> None:
        self.one = one
        self.path = Path(f"{shape.places(one, settings)[0]}.reload")
        self.held: dict[str, Any] = {}
        # Without it, what is on the host is what the container was started with.
        with suppress(OSError, ValueError, TypeError):
            self.held = dict(json.loads(self.path.read_text(encoding="utf-8")))

    def _known(self, prints: dict[str, str]) -> dict[str, Any]:
        before = {
            "label": prints["fingerprint_before"],
            "fixed": prints["fingerprint_before_fixed"],
        }
        return {**before, **self.held}

    def label(self, prints: dict[str, str]) -> str:
        """Return the label of a container that need not be created again, or that of a new one."""
        known = self._known(prints)
        same = known["fixed"] == prints["fingerprint_fixed"]
        return str(known["label"] if same else prints["fingerprint"])

    def begin(self, why: list[str], prints: dict[str, str]) -> None:
        """Record that the process has to be told, before a file that it reads again is written."""
        if {*why} & {*self.one["reload"]["files"]}:
            self._write({**self._known(prints), "pending": True})

    def take_up(self) -> str:
        """Tell the process, if it has to be told; return why it does not do it, or nothing."""
        if not self.held.get("pending"):
            return ""
        words = ["exec", "--user", self.one["user"], shape.name_of(self.one)]
        try:
            done = docker(*words, *self.one["reload"]["command"], timeout=60)
        except (EngineError, OSError) as error:
            return str(error)
        return (done.stderr or done.stdout).strip() if done.returncode else ""

    def end(self, prints: dict[str, str]) -> None:
        """Record what the process now has."""
        self._write(
            {"label": self.label(prints), "fixed": prints["fingerprint_fixed"], "pending": False}
        )

    def _write(self, held: dict[str, Any]) -> None:
        if held != self.held:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace(self.path, (json.dumps(held, sort_keys=True) + "\n").encode(), 0o600)
            flush_directory(self.path.parent)
        self.held = held
