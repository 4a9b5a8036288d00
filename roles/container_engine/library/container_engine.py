#!/usr/bin/python
"""Install, configure and start a host's container engine in one call.

It compares packages, configuration, unit, forwarding, the engine's own firewall rules and the
network of the containers with the wanted state, and corrects differences. It refuses a change that
would hide the containers of the host. It returns what differed, in words, the engine's own answer
in the form of a command's result, and of its configuration the keys that change (C(changes)), those
of the client (C(kept)), the containers that stop and start with the engine (C(stops)), and whether
there was one (C(found)). The action plugin of the same name copies the release's packages if one is
missing.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from ansible.module_utils import (
    engine_configuration,
    engine_network,
    engine_rules,
    kernel_values,
    offline_packages,
)
from ansible.module_utils.compat.version import LooseVersion
from ansible.module_utils.engine_client import EngineError, about_engine
from ansible.module_utils.host_module import answer
from ansible.module_utils.host_tools import RefusedError, run
from ansible.module_utils.image_identity import CONTAINERD, image_store

UNIT = "docker.service"
CONFIGURATION = Path("/etc/docker/daemon.json")
PIDFILE = Path("/run/docker.pid")
#: The last file in its folder, so that it overrides the others.
SYSCTL = Path("/etc/sysctl.d/99-zz-airlift.conf")
KERNEL = Path("/proc/sys")
RELEASE = Path("/etc/os-release")
#: Seconds until a restarted engine must have its firewall rules.
RULES_SECONDS = 10


class Engine:
    """The engine of this host, and what changed or would change."""

    def __init__(self, module: Any) -> None:
        self.module, self.check = module, module.check_mode
        self.options: dict[str, Any] = module.params
        self.host = self.options["host"]
        self.changes: list[str] = []
        self.diffs: list[dict[str, Any]] = []
        self.due = False
        self.outdated: list[str] = []
        self.present = bool(run("dockerd", "--version").stdout.strip())
        self.told = self.ask()

    def note(self, change: str, diff: dict[str, Any] | None = None) -> bool:
        """Record a change; return whether to make it."""
        self.changes.append(change)
        self.diffs += [{"before_header": change, "after_header": change, **diff}] if diff else []
        return not self.check

    def ask(self) -> dict[str, Any]:
        """Return what the engine tells of itself; nothing when none answers."""
        try:
            return dict(about_engine())
        except EngineError:
            return {}

    def systemctl(self, verb: str, *, must: bool = True) -> None:
        """Call systemctl for the engine's unit."""
        # systemd limits starts to three per minute, which two runs can need.
        run("systemctl", "reset-failed", UNIT)
        done = run("systemctl", verb, UNIT, seconds=None)
        if done.returncode and must:
            message = (
                f"systemctl {verb} {UNIT} failed on {self.host}: {done.stderr.strip()}. "
                f"Find the cause with `journalctl -u {UNIT}`, then run the same command again."
            )
            raise RefusedError(message)

    def wake(self) -> None:
        """Start an engine that does not answer: only a running one can list its containers."""
        if self.check or self.told or not self.present:
            return
        self.systemctl("start", must=False)
        self.told = self.ask()
        if self.told:
            self.note(f"{UNIT}: started")
        elif CONFIGURATION.exists():
            message = (
                f"The engine of {self.host} does not start with its present {CONFIGURATION}, so it "
                "is unknown whether it has containers that a new configuration would hide. Find "
                f"the cause with `journalctl -u {UNIT}`, correct or remove that file, then run the "
                "same command again."
            )
            raise RefusedError(message)

    def keep(self) -> None:
        """Refuse to change the image store or the data directory of a host that has containers."""
        containers = int(self.told.get("Containers") or 0)
        if not containers:
            return
        wanted = str(self.options["settings"]["data-root"])
        store = image_store(self.told)
        # Omit the directory that user namespaces add. The path is resolved if ours is a link.
        data = re.sub(r"/[0-9]+[.][0-9]+$", "", self.told.get("DockerRootDir", ""))
        if store == self.options["image_store"] and data in (wanted, os.path.realpath(wanted)):
            return
        message = (
            f"{self.host} stores images with {store} in {data}, the inventory asks for "
            f"{self.options['image_store']} in {wanted}, and a change would hide its {containers} "
            f"containers. Set container_engine_image_store to {store} and "
            f"container_engine_data_dir to {data} for this host."
        )
        raise RefusedError(message)

    def require(self) -> None:
        """Refuse an engine that is too old."""
        version, minimum = self.told.get("ServerVersion"), self.options["minimum"]
        if version and LooseVersion(version) < LooseVersion(minimum):
            message = (
                f"{self.host} runs engine {version}; {minimum} or newer is needed. Upgrade it with "
                "the tools that installed it, then run the same command again."
            )
            raise RefusedError(message)

    def lacking(self) -> tuple[str, str, list[str]]:
        """Return the repository for this host, its format, and the missing packages."""
        name, system = offline_packages.system_of(self.options["systems"], RELEASE)
        there = name in self.options["repositories"]
        if not (self.present or there):
            minimum = self.options["minimum"]
            message = (
                f"{self.host} has no engine, and this release has no packages for "
                f"{system['name']}: install engine {minimum} or newer from the client's own "
                "packages, or ask the vendor for a bundle with packages for this system; then run "
                "the same command again."
            )
            raise RefusedError(message)
        wanted: list[str] = []
        for kind in ("support", *(() if self.present else ("engine",))):
            given = self.options[f"{kind}_packages"]
            wanted += system.get(kind, []) if given is None else given
        wanted += [one for kind in self.options["also"] for one in system.get(kind, [])]
        form = system.get("format", "deb")
        missing = offline_packages.missing_packages(form, wanted)
        if self.options["update"] and self.present:
            offered = self.options["offered"].get(name, {})
            self.outdated = offline_packages.outdated_packages(form, offered)
        if missing and not there:
            message = (
                f"{', '.join(missing)}: not installed on {self.host}, and this release has no "
                f"packages for {name}. Install them by the client's own means, or ask for a bundle "
                "that was built where they can be reached; then run the same command again."
            )
            raise RefusedError(message)
        return name, form, [*missing, *(one for one in self.outdated if one not in missing)]

    def configure(self) -> dict[str, Any]:
        """Merge our keys into the configuration: the engine must find it at its first start."""
        folder = CONFIGURATION.parent
        if folder.is_dir() and folder.stat().st_mode & 0o777 != 0o755:  # noqa: SIM102
            if self.note(f"{folder}: mode 0755"):
                folder.chmod(0o755)
        found: dict[str, Any] = engine_configuration.bring(self.module, CONFIGURATION, PIDFILE)
        self.due = self.due or found["due"]
        if found["changed"]:
            self.note(f"{CONFIGURATION}: {', '.join(found['changes'])}", found["diff"])
        return found

    def install(self, form: str, missing: list[str]) -> None:
        """Install the missing packages from the staged repository."""
        if missing:
            if self.note(f"packages: {', '.join(missing)}"):
                offline_packages.install(form, missing)
                self.present = True
        # No installation is running now, and the file would prevent all services from starting.
        elif offline_packages.is_leftover() and self.note(f"{offline_packages.POLICY}: removed"):
            offline_packages.POLICY.unlink()

    def start(self, configuration: dict[str, Any]) -> None:
        """Let the engine run with its configuration, now and after a reboot."""
        there = self.present or not self.check
        runs = there and run("systemctl", "is-active", UNIT).returncode == 0
        if configuration["restart"] or self.outdated or not runs:
            word = "restart" if runs else "start"
            late = runs and configuration["restart"] and not configuration["changed"]
            why = f", because it was started before {CONFIGURATION} was written" if late else ""
            if self.note(f"{UNIT}: {word}ed{why}"):
                self.systemctl(word)
        if not (there and run("systemctl", "is-enabled", UNIT).returncode == 0):  # noqa: SIM102
            if self.note(f"{UNIT}: enabled"):
                self.systemctl("enable")
        if self.changes and not self.check:
            self.told = self.ask()
            if not self.told:
                message = f"{UNIT} of {self.host} runs and does not answer: journalctl -u {UNIT}"
                raise RefusedError(message)
            self.require()

    def forward(self) -> None:
        """Enable forwarding for containers; a `sysctl -w` can undo the engine's own setting."""
        wanted = {"path": SYSCTL, "root": KERNEL, "settings": {"net.ipv4.ip_forward": 1}}
        found = kernel_values.run({**wanted, "leave": {}}, check=self.check)
        for warning in found["warnings"]:
            self.module.warn(warning)
        if found["changed"]:
            self.note("forwarding: net.ipv4.ip_forward = 1", found["diff"])

    def missing_rules(self) -> list[str]:
        """Return the engine's own firewall rules that are missing."""
        made = engine_rules.makes_rules(CONFIGURATION, PIDFILE)
        return engine_rules.missing(self.options["network"]["name"]) if made else []

    def rules(self) -> None:
        """Restart an engine whose rules another program removed: it creates them at its start."""
        gone = self.missing_rules() if self.told else []
        if not gone or not self.note(f"{UNIT}: restarted, because it lost {', '.join(gone)}"):
            return
        self.systemctl("restart")
        for attempt in range(RULES_SECONDS):
            time.sleep(1 if attempt else 0)
            gone = self.missing_rules()
            if not gone:
                return
        message = (
            f"The engine of {self.host} was restarted because its own firewall rules were missing, "
            f"and has not made them again: {', '.join(gone)}. Find out whether another program "
            "manages the firewall of this host, then run the same command again."
        )
        raise RefusedError(message)

    def network(self) -> None:
        """Create the containers' network."""
        name, options = self.options["network"]["name"], self.options["network"]["options"]
        if self.present and not self.told:
            return  # in check mode, no engine was started that could be queried
        if engine_network.differs(name, options) and self.note(f"network {name}: created"):
            engine_network.create(name, options)

    def planned(self) -> dict[str, Any]:
        """Return what the engine will report of itself, for check mode on an empty host."""
        store = self.options["image_store"]
        status = [["driver-type", CONTAINERD]] if store == "containerd" else None
        return {"ServerVersion": "planned", "Driver": store, "DriverStatus": status}

    def bring(self) -> dict[str, Any]:
        """Apply all settings and return the module's result."""
        self.wake()
        self.keep()
        self.require()
        repository, form, missing = self.lacking()
        owner = self.options["stage_owner"]
        if missing and owner and not self.check:
            offline_packages.stage(owner)
            return {"changed": True, "staged": repository}
        configuration = self.configure()
        self.install(form, missing)
        self.start(configuration)
        self.forward()
        self.rules()
        self.network()
        told = self.told or (self.planned() if self.check and not self.present else {})
        return {
            "changed": bool(self.changes),
            "changes": self.changes,
            "due": self.due or bool(self.changes),
            "diff": self.diffs,
            "outdated": self.outdated,
            "configuration": {
                key: configuration.get(key, []) for key in ("changes", "kept", "stops", "found")
            },
            "rc": 0,
            "stdout": json.dumps(told),
        }


TEXTS = {"type": "list", "elements": "str"}
OPTIONS = {
    # The host's name in messages, the oldest supported engine, how it stores images, and the file
    # that says which of the settings an earlier run put there.
    **{name: {"required": True} for name in ("host", "minimum", "image_store", "record")},
    # The settings of its configuration, whose other keys stay; name and options of the network.
    **{name: {"type": "dict", "required": True} for name in ("settings", "network")},
    # Operating systems and their packages, as bundle/systems.yml has them.
    "systems": {"type": "list", "elements": "dict", "required": True},
    # Where they differ from the system's.
    "support_packages": TEXTS,
    "engine_packages": TEXTS,
    # Further kinds of packages that this host needs, as bundle/systems.yml names them.
    "also": {**TEXTS, "default": []},
    # Install newer packages of the release, too. The engine restarts with them.
    "update": {"type": "bool", "default": False},
    # The rest is between the action plugin and this: the release's repositories, what is in that
    # folder, the versions of each one's packages, and the user who copies one to the host.
    "packages_dir": {"type": "path"},
    "repositories": {**TEXTS, "default": []},
    "offered": {"type": "dict", "default": {}},
    "stage_owner": {"type": "str", "default": ""},
}

if __name__ == "__main__":
    answer(lambda module: Engine(module).bring(), OPTIONS)
