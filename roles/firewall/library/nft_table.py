#!/usr/bin/python
"""Keep one nftables table, its file and its unit as wanted; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table
short_description: Keep one nftables table equal to its file, with automatic restore
description:
  - Loads a ruleset file in one transaction. Other tables are ignored.
  - Compares the file and the live table. So a removed rule is restored, and the next run completes
    one that was killed between writing and loading.
  - After O(state=loaded) a timer on the host restores the previous table unless
    O(state=confirmed) follows in time. So a table that locks us out does not stay.
  - The unit that loads the file at each start of the host only loads a confirmed table.
options:
  state:
    description:
      - C(loaded) loads, C(confirmed) keeps; C(absent) removes table, files and unit.
    type: str
    choices: [loaded, confirmed, absent]
    required: true
  host: {description: The host's name in messages., type: str, default: this host}
  allowed:
    description: Networks that must contain the address of this SSH connection.
    type: list
    elements: str
    default: []
  family: {description: Family of the table., type: str, default: inet}
  table: {description: Name of the table., type: str, required: true}
  path: {description: The ruleset file., type: path, required: true}
  content:
    description: The ruleset. It must begin by deleting the table, so that it can replace it.
    type: str
    default: ""
  unit: {description: File of the systemd unit., type: path, required: true}
  unit_content: {description: The unit., type: str, default: ""}
  confirm_seconds: {description: How long the timer waits., type: int, default: 60}
"""

EXAMPLES = r"""
- name: Load
  nft_table:
    state: loaded
    table: airlift
    path: /etc/airlift/firewall.nft
    content: "{{ lookup('ansible.builtin.template', 'firewall.nft.j2') }}"
    unit: /etc/systemd/system/airlift-firewall.service
    unit_content: "{{ lookup('ansible.builtin.template', 'airlift-firewall.service.j2') }}"
"""

RETURN = r"""
changes: {description: What differed, in words., returned: always, type: list, elements: str}
unconfirmed:
  description: Whether a table was loaded that the timer takes away again.
  returned: always
  type: bool
"""

import hashlib  # noqa: E402
import ipaddress  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.host_tools import RefusedError, login_address, replace  # noqa: E402

UNDO = "airlift-firewall-undo"


def covers(networks: Sequence[str], address: str) -> bool:
    """Return whether an address is in one of the networks."""
    number = ipaddress.ip_address(address)
    return any(number in ipaddress.ip_network(network, strict=False) for network in networks)


def text_of(path: Path) -> str:
    """Return a file's text; empty if there is no file."""
    return path.read_text() if path.exists() else ""


class Table:
    """One table, its file, its last confirmed state, and the unit that loads it."""

    def __init__(self, module: Any) -> None:
        self.module, options = module, module.params
        self.name = [options["family"], options["table"]]
        self.path = Path(options["path"])
        self.previous = self.path.with_suffix(".previous")
        self.stamp = self.path.with_suffix(".confirmed")
        self.content = options.get("content", "")
        self.unit = Path(options.get("unit", ""))

    def listing(self) -> str:
        """Return the live table without counters; empty if there is none."""
        if not shutil.which("nft"):
            return ""
        code, output, _ = self.module.run_command(
            ["nft", "--stateless", "list", "table", *self.name]
        )
        return str(output) if code == 0 else ""

    def fingerprint(self) -> str:
        """Return the record of a confirmed table: the digests of the file and of the live table."""
        texts = (text_of(self.path), self.listing())
        return json.dumps([hashlib.sha256(one.encode()).hexdigest() for one in texts])

    def difference(self) -> str:
        """Return the difference from the wanted state; empty if there is none."""
        if text_of(self.path) != self.content:
            return "the rules changed"
        if not self.stamp.exists():
            return "the rules were never confirmed"
        if self.stamp.read_text() != self.fingerprint():
            return "the kernel holds other rules than the file"
        return ""

    def guard(self) -> None:
        """Refuse rules that would lock out the login that applies them."""
        address, allowed = login_address(), self.module.params["allowed"]
        if address and not covers(allowed, address):
            message = (
                f"{self.module.params['host']} sees this jump host as {address}, which is not in "
                f"site_mgmt_addresses ({', '.join(allowed)}): these rules would lock it out. "
                f"Add {address}/32 to site_mgmt_addresses."
            )
            raise RefusedError(message)

    def loaded(self) -> dict[str, Any]:
        """Check the rules, schedule the restore, load; the unit loads only confirmed rules."""
        self.guard()
        reason = self.difference()
        diff = [self.diff(self.path, self.content)] if reason else []
        if reason:
            self.check_rules()
            if not self.module.check_mode:
                self.load()
        changes = [reason] if reason else []
        # The next start of the host must not load a table that is not confirmed.
        if not reason or self.module.check_mode:
            changes += self.keep_unit(diff)
        return {"changes": changes, "diff": diff, "unconfirmed": bool(reason)}

    def check_rules(self) -> None:
        """Check the rules with nft; in check mode, a host may not have it yet."""
        if shutil.which("nft") or not self.module.check_mode:
            with tempfile.NamedTemporaryFile("w", suffix=".nft") as wanted:
                wanted.write(self.content)
                wanted.flush()
                self.run("nft", "--check", "--file", wanted.name)

    def load(self) -> None:
        """Load the rules, with a timer that restores the previous ones."""
        # Without a previous table, to restore means to remove the new one.
        was, name = self.listing() and text_of(self.path), " ".join(self.name)
        replace(self.previous, was or f"table {name}\ndelete table {name}\n", 0o600)
        self.stamp.unlink(missing_ok=True)
        self.disarm()
        undo = f"cp -p {self.previous} {self.path} && nft -f {self.path}"
        seconds = self.module.params["confirm_seconds"]
        self.run(
            *("systemd-run", "--quiet", "--collect", f"--unit={UNDO}", f"--on-active={seconds}"),
            *("--timer-property=AccuracySec=1s", "/bin/sh", "-c", undo),
        )
        replace(self.path, self.content, 0o600)
        self.run("nft", "--file", str(self.path))

    def confirmed(self) -> dict[str, Any]:
        """Confirm the loaded table, if it is still there."""
        self.disarm()
        if text_of(self.path) != self.content:
            message = (
                "no new SSH connection came through the new rules in time, so the host put the "
                "old ones back: see whether site_mgmt_addresses names this jump host"
            )
            raise RefusedError(message)
        replace(self.stamp, self.fingerprint(), 0o600)
        diff: list[dict[str, str]] = []
        return {"changes": ["the rules are confirmed", *self.keep_unit(diff)], "diff": diff}

    def keep_unit(self, diff: list[dict[str, str]]) -> list[str]:
        """Make the unit load the table at each start of the host; return the changes."""
        changes, name, wanted = [], self.unit.name, self.module.params["unit_content"]
        act = not self.module.check_mode
        there = self.unit.exists()
        if text_of(self.unit) != wanted or self.unit.stat().st_mode & 0o7777 != 0o644:
            changes.append(f"{name}: other content")
            diff.append(self.diff(self.unit, wanted))
            if act:
                replace(self.unit, wanted)
                self.run("systemctl", "daemon-reload")
        for question, verb in (("enabled", "enable"), ("active", "start")):
            if not (there and self.succeeds("systemctl", f"is-{question}", name)):
                changes.append(f"{name}: not {question}")
                if act:
                    self.run("systemctl", verb, name)
        return changes

    def absent(self) -> dict[str, Any]:
        """Remove the table, now and for the next start, and its files."""
        files = [self.unit, self.path, self.previous, self.stamp]
        there = [path for path in files if path.exists()]
        if not self.module.check_mode:
            if self.unit in there:
                self.run("systemctl", "disable", "--now", self.unit.name)
            for path in there:
                path.unlink()
            if self.unit in there:
                self.run("systemctl", "daemon-reload")
        return {"changes": [f"{path}: removed" for path in there]}

    def diff(self, path: Path, after: str) -> dict[str, str]:
        """Return the difference of a file for --diff."""
        header = {"before_header": str(path), "after_header": str(path)}
        return {**header, "before": text_of(path), "after": after}

    def disarm(self) -> None:
        """Cancel the timer; ignore if there is none."""
        self.succeeds("systemctl", "stop", f"{UNDO}.timer")

    def succeeds(self, *command: str) -> bool:
        """Run a command; return whether it succeeded."""
        return bool(self.module.run_command(list(command))[0] == 0)

    def run(self, *command: str) -> None:
        """Run a command; fail the module if it fails."""
        code, output, errors = self.module.run_command(list(command))
        if code != 0:
            message = f"{' '.join(command)}: {(errors or output).strip()}"
            raise RefusedError(message)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["loaded", "confirmed", "absent"], "required": True},
            "host": {"type": "str", "default": "this host"},
            "allowed": {"type": "list", "elements": "str", "default": []},
            "family": {"type": "str", "default": "inet"},
            "table": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "default": ""},
            "unit": {"type": "path", "required": True},
            "unit_content": {"type": "str", "default": ""},
            "confirm_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    # Modes of parent directories must not depend on the umask of sudo.
    os.umask(0o022)
    try:
        result = getattr(Table(module), module.params["state"])()
        module.exit_json(**{"unconfirmed": False, **result}, changed=bool(result["changes"]))
    except (OSError, RefusedError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
