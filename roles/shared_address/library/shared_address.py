#!/usr/bin/python
"""Let keepalived share an address with other hosts, or no longer; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shared_address
short_description: Let keepalived share an address with other hosts, or no longer
description:
  - C(present) writes configuration and unit, has keepalived check the configuration before that,
    and lets the unit run with it. A changed configuration is loaded again, which moves no address;
    only a changed unit, or one that does not run, is started again.
  - C(absent) ends the unit, which removes the address from this host, and removes both files. The
    package stays.
  - Compares the file with the copy that the unit runs with. So the next run completes a killed one.
options:
  state: {type: str, choices: [present, absent], required: true}
  host: {description: The host's name in messages., type: str, required: true}
  address: {description: The host's own address., type: str, required: true}
  shared: {type: str, default: "",
    description: "The shared address, with the length of its prefix."}
  interface: {type: str, default: "",
    description: Interface of the shared address; empty for the one of the host's own address.}
  path: {description: Configuration of keepalived., type: path, required: true}
  content: {type: str, default: "",
    description: "Its content; @interface@ stands for the interface."}
  running: {description: The copy with which the unit runs., type: path, required: true}
  unit: {description: File of the systemd unit., type: path, required: true}
  unit_content: {description: The unit., type: str, default: ""}
"""

EXAMPLES = r"""
- name: Shared address
  shared_address:
    state: present
    host: edge-1
    address: 10.0.1.11
    shared: 10.0.1.100/24
    path: /etc/airlift/keepalived.conf
    content: "{{ lookup('ansible.builtin.template', 'keepalived.conf.j2') }}"
    running: /run/airlift-address/keepalived.conf
    unit: /etc/systemd/system/airlift-address.service
    unit_content: "{{ lookup('ansible.builtin.template', 'airlift-address.service.j2') }}"
"""

RETURN = r"""
changes: {description: What differed, in words., returned: always, type: list, elements: str}
"""

import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils import host_addresses  # noqa: E402
from ansible.module_utils.host_module import answer  # noqa: E402
from ansible.module_utils.host_tools import RefusedError, replace, run  # noqa: E402

TOKEN = "@interface@"  # noqa: S105
#: Seconds until a unit that was told to read its configuration has done so.
LOADED_SECONDS = 5


def text_of(path: Path) -> str:
    """Return a file's text; empty if there is no file."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


class Shared:
    """The shared address on this host."""

    def __init__(self, module: Any) -> None:
        self.check: bool = module.check_mode
        self.options: dict[str, Any] = module.params
        self.host: str = self.options["host"]
        self.path, self.unit = Path(self.options["path"]), Path(self.options["unit"])
        self.running = Path(self.options["running"])
        self.changes: list[str] = []
        self.diffs: list[dict[str, str]] = []

    def systemctl(self, *words: str) -> None:
        """Call systemctl; fail with its message."""
        done = run("systemctl", *words)
        if done.returncode:
            message = (
                f"systemctl {' '.join(words)} failed on {self.host}: {done.stderr.strip()}. Find "
                f"the cause with `journalctl -u {self.unit.name}`, then run the same command again."
            )
            raise RefusedError(message)

    def state(self) -> dict[str, str]:
        """Return what systemd knows of the unit."""
        names = "NeedDaemonReload,UnitFileState,ActiveState"
        lines = run("systemctl", "show", self.unit.name, f"--property={names}").stdout.splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def note(self, change: str) -> bool:
        """Record a change; return whether to make it."""
        self.changes.append(change)
        return not self.check

    def write(self, path: Path, content: str, mode: int) -> bool:
        """Write a file that differs; return whether it did."""
        before = text_of(path)
        if before == content and path.is_file():
            return False
        header = {"before_header": str(path), "after_header": str(path)}
        self.diffs.append({**header, "before": before, "after": content})
        if self.note(f"{path}: {'other content' if before else 'written'}"):
            replace(path, content, mode)
        return True

    def valid(self, content: str) -> None:
        """Let keepalived check the configuration; in check mode, a host may not have it yet."""
        there = run("keepalived", "--version").returncode == 0
        if not there and self.check:
            return
        if not there:
            message = (
                f"{self.host} has no keepalived. Install it with the other packages of the release:"
                " run install.yml without --tags, or with --tags container_engine first"
            )
            raise RefusedError(message)
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as wanted:
            wanted.write(content)
            wanted.flush()
            done = run("keepalived", "--config-test", "--use-file", wanted.name)
        if done.returncode:
            said = " ".join(
                (done.stderr or done.stdout).replace(wanted.name, self.path.name).split()
            )
            message = f"keepalived of {self.host} refuses its configuration: {said}"
            raise RefusedError(message)

    def present(self) -> None:
        """Write both files, and let the unit run with them."""
        found, options = host_addresses.places(), self.options
        name = host_addresses.interface_of(
            found, options["address"], options["shared"], options["interface"]
        )
        content = options["content"].replace(TOKEN, name)
        if text_of(self.path) != content:
            self.valid(content)
        self.write(self.path, content, 0o644)
        fresh = self.write(self.unit, options["unit_content"], 0o644)
        state = self.state()
        fresh = fresh or state.get("NeedDaemonReload") == "yes"
        if fresh and not self.check:
            self.systemctl("daemon-reload")
        # While systemd waits to start it again, it is not active either.
        runs = state.get("ActiveState") in ("active", "reloading")
        if state.get("UnitFileState") != "enabled" and self.note(f"{self.unit.name}: enabled"):
            self.systemctl("enable", self.unit.name)
        if fresh or not runs:
            if self.note(f"{self.unit.name}: {'restarted' if runs else 'started'}"):
                self.systemctl("restart", self.unit.name)
        elif text_of(self.running) != content and self.note(f"{self.unit.name}: reloaded"):
            self.systemctl("reload", self.unit.name)
        if self.changes and not self.check:
            self.require(content)

    def require(self, content: str) -> None:
        """Require that the unit runs with the configuration."""
        for attempt in range(LOADED_SECONDS):
            time.sleep(1 if attempt else 0)
            state = self.state().get("ActiveState")
            if state == "active" and text_of(self.running) == content:
                return
        message = (
            f"{self.unit.name} of {self.host} does not run with its configuration, it is {state}; "
            f"see: journalctl -u {self.unit.name}"
        )
        raise RefusedError(message)

    def absent(self) -> None:
        """End the unit, which removes the address, and remove the files."""
        there = [path for path in (self.unit, self.path) if path.exists()]
        for path in there:
            if self.note(f"{path}: removed") and path == self.unit:
                self.systemctl("disable", "--now", self.unit.name)
        if not self.check:
            for path in there:
                path.unlink()
            if self.unit in there:
                self.systemctl("daemon-reload")

    def bring(self) -> dict[str, Any]:
        """Bring the state about and return the module's result."""
        getattr(self, self.options["state"])()
        return {"changed": bool(self.changes), "changes": self.changes, "diff": self.diffs}


OPTIONS = {
    "state": {"choices": ["present", "absent"], "required": True},
    **{name: {"required": True} for name in ("host", "address")},
    **{name: {"type": "path", "required": True} for name in ("path", "running", "unit")},
    **{
        name: {"type": "str", "default": ""}
        for name in ("shared", "interface", "content", "unit_content")
    },
}

if __name__ == "__main__":
    answer(lambda module: Shared(module).bring(), OPTIONS)
