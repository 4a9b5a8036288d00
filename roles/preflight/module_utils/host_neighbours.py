"""What else runs on a host, or is needed by it, that a firewall between zones has to do with."""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.host_tools import run

UFW = Path("/etc/ufw/ufw.conf")
# The second one has the servers where the first names systemd's own resolver.
RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
#: Seconds for an answer of a program.
TIMEOUT = 20


def said(*command: str) -> str:
    """Return what a program prints; nothing when it is absent or fails."""
    done = run(*command, seconds=TIMEOUT, LC_ALL="C")
    return done.stdout.strip() if done.returncode == 0 else ""


def text_of(path: Path) -> str:
    """Return a file's text; nothing when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def neighbours() -> dict[str, Any]:
    """Return which firewall managers are at work, and what podman does here."""
    firewalls = ["firewalld"] if said("systemctl", "is-active", "firewalld") == "active" else []
    words = text_of(UFW).lower().split()
    firewalls += ["ufw"] if "enabled=yes" in words else []
    return {
        "firewalls": firewalls,
        # Debian's podman-docker, and Red Hat's: a program of the engine's name that is not its.
        "docker_is_podman": said("docker", "--version").startswith("podman"),
        "podman_containers": len(said("podman", "ps", "--quiet").split())
        if shutil.which("podman")
        else 0,
    }


def name_servers() -> list[str]:
    """Return the servers of names that this host asks, besides itself."""
    found: list[str] = []
    for path in RESOLVERS:
        for line in text_of(path).splitlines():
            word, _, rest = line.strip().partition(" ")
            if word == "nameserver":
                found.append(rest.split("%")[0].strip())
    return found


def time_servers() -> list[tuple[str, str]]:
    """Return program and address of each server of time; a query of one is over in no time."""
    # A line for each source, such as `^,*,10.0.0.1,2,6,377,...`; `#` is a clock of the host's own.
    sources = [line.split(",") for line in said("chronyc", "-n", "-c", "sources").splitlines()]
    found = [("chronyd", one[2]) for one in sources if len(one) > 2 and one[0] != "#"]
    other = said("timedatectl", "show-timesync", "--property=ServerAddress", "--value")
    return found + ([("systemd-timesyncd", other)] if other else [])


def needed() -> list[dict[str, Any]]:
    """Return the servers that the host asks now and then, in the form of its connections."""
    asked = [("name resolution", one, 53) for one in name_servers()]
    asked += [(program, one, 123) for program, one in time_servers()]
    found: list[dict[str, Any]] = []
    for program, address, port in asked:
        with contextlib.suppress(ValueError):
            if not ipaddress.ip_address(address).is_loopback:
                one = {"program": program, "direction": "out", "address": address}
                found.append({**one, "protocol": "udp", "port": port})
    return found
