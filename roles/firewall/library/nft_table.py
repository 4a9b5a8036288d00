#!/usr/bin/python
"""Keep one nftables table equal to its file; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table
short_description: Keep one nftables table equal to its file, with automatic restore
description:
  - Loads a ruleset file in one transaction. Other tables are not looked at.
  - Compares not only the file but what the kernel holds, so a rule that somebody took away comes
    back, and a run that was killed between writing and loading is finished by the next one.
  - After O(state=loaded) a timer on the host puts the previous table back unless
    O(state=confirmed) follows in time. A table that locks us out heals itself.
options:
  state:
    description: C(loaded) loads, C(confirmed) keeps.
    type: str
    choices: [loaded, confirmed]
    required: true
  family:
    description: Family of the table.
    type: str
    default: inet
  table:
    description: Name of the table.
    type: str
    required: true
  path:
    description: The ruleset file.
    type: path
    required: true
  content:
    description: The ruleset. It must begin by deleting the table, so that it can replace it.
    type: str
    default: ""
  confirm_seconds:
    description: How long the timer waits.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Load
  nft_table:
    state: loaded
    table: airlift
    path: /etc/airlift/firewall.nft
    content: "{{ lookup('ansible.builtin.template', 'firewall.nft.j2') }}"
"""

RETURN = r"""
reason:
  description: What differed.
  returned: when changed
  type: str
"""

import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

UNDO = "airlift-firewall-undo"


def write_file(path: Path, content: str) -> None:
    """Replace a file atomically and flush it."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "w") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    Path(temporary).chmod(0o600)
    Path(temporary).replace(path)


class Table:
    """One table, its file, and what was last confirmed."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.name = [module.params["family"], module.params["table"]]
        self.path = Path(module.params["path"])
        self.previous = self.path.with_suffix(".previous")
        self.stamp = self.path.with_suffix(".confirmed")

    def listing(self) -> str:
        """Return the live table without counters, or nothing when there is none."""
        if not shutil.which("nft"):
            return ""
        code, output, _ = self.module.run_command(
            ["nft", "--stateless", "list", "table", *self.name]
        )
        return str(output) if code == 0 else ""

    def fingerprint(self) -> str:
        """Return what a confirmed table leaves behind: the file's and the kernel's digests."""
        text = self.path.read_text() if self.path.exists() else ""
        digests = [hashlib.sha256(one.encode()).hexdigest() for one in (text, self.listing())]
        return json.dumps(digests)

    def difference(self, content: str) -> str:
        """Say what differs from the wanted state, or nothing."""
        if not self.path.exists() or self.path.read_text() != content:
            return "the rules changed"
        if not self.stamp.exists():
            return "the rules were never confirmed"
        if self.stamp.read_text() != self.fingerprint():
            return "the kernel holds other rules than the file"
        return ""

    def load(self, content: str, seconds: int) -> dict[str, Any]:
        """Check the rules, schedule restoring the old ones, load."""
        reason = self.difference(content)
        if not reason:
            return {"changed": False}
        before = self.path.read_text() if self.path.exists() else ""
        # A rehearsal on a host that has no nftables yet cannot check them.
        if shutil.which("nft") or not self.module.check_mode:
            with tempfile.NamedTemporaryFile("w", suffix=".nft") as wanted:
                wanted.write(content)
                wanted.flush()
                self.run("nft", "--check", "--file", wanted.name)
        result = {
            "changed": True,
            "reason": reason,
            "diff": {"before": before, "after": content},
        }
        if self.module.check_mode:
            return result
        # Without a previous table, restoring means to remove the new one.
        was = self.listing() and before
        name = " ".join(self.name)
        write_file(self.previous, was or f"table {name}\ndelete table {name}\n")
        self.stamp.unlink(missing_ok=True)
        self.disarm()
        undo = f"cp -p {self.previous} {self.path} && nft -f {self.path}"
        self.run(
            *("systemd-run", "--quiet", "--collect", f"--unit={UNDO}", f"--on-active={seconds}"),
            *("--timer-property=AccuracySec=1s", "/bin/sh", "-c", undo),
        )
        write_file(self.path, content)
        self.run("nft", "--file", str(self.path))
        return result

    def confirm(self, content: str) -> dict[str, Any]:
        """Keep what was loaded, if it is still there."""
        self.disarm()
        if not self.path.exists() or self.path.read_text() != content:
            self.module.fail_json(
                msg="no new SSH connection came through the new rules in time, so the host put the "
                "old ones back: see whether site_mgmt_addresses names this jump host"
            )
        write_file(self.stamp, self.fingerprint())
        return {"changed": True}

    def disarm(self) -> None:
        """Take the timer away; it is no error when there is none."""
        self.module.run_command(["systemctl", "stop", f"{UNDO}.timer"])

    def run(self, *command: str) -> None:
        """Run a command that must work."""
        code, output, errors = self.module.run_command(list(command))
        if code != 0:
            self.module.fail_json(
                msg=f"{command[0]}: {(errors or output).strip()}", command=command
            )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["loaded", "confirmed"], "required": True},
            "family": {"type": "str", "default": "inet"},
            "table": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "default": ""},
            "confirm_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    # Modes of parent directories must not depend on the umask of sudo.
    os.umask(0o022)
    table = Table(module)
    try:
        if module.params["state"] == "loaded":
            result = table.load(module.params["content"], module.params["confirm_seconds"])
        elif module.check_mode:
            result = {"changed": False}
        else:
            result = table.confirm(module.params["content"])
    except OSError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
