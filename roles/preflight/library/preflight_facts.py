#!/usr/bin/python
"""Collect everything that preflight needs from a host, in one go; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_facts
short_description: Collect everything that preflight needs from a host, in one go
description:
  - Reads only. Omits facts that need root unless O(root) is set.
  - Needs nothing but Python on the host.
options:
  paths:
    description: Paths whose free space matters. They need not exist yet.
    type: list
    elements: path
    default: []
  ports:
    description: Ports that must be free, or ours.
    type: list
    elements: int
    default: []
  root:
    description: Collect the facts that only root is allowed to read.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Facts
  preflight_facts:
    paths: [/var/lib/docker]
    ports: [443]
"""

RETURN = r"""
facts:
  description: What was found.
  returned: always
  type: dict
"""

import contextlib  # noqa: E402
import errno  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import re  # noqa: E402
import socket  # noqa: E402
import struct  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

NETLINK_NETFILTER = 12
NFT_MSG_GETGEN = (10 << 8) | 16
NLMSG_ERROR = 2
LISTEN = "0A"


def os_release() -> dict[str, str]:
    """Return the operating system's name for itself."""
    text = Path("/etc/os-release").read_text(encoding="utf-8")
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {
        "id": pairs.get("ID", "").strip('"'),
        "version": pairs.get("VERSION_ID", "").strip('"'),
        "name": pairs.get("PRETTY_NAME", "").strip('"'),
    }


def memory_mb() -> int:
    """Return the host's memory."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def free_space(path: str) -> dict[str, Any]:
    """Return the free space where a path is, or will be."""
    place = Path(path)
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    return {
        "device": place.stat().st_dev,
        "existing": str(place),
        "free": status.f_bavail * status.f_frsize,
    }


def run(*command: str) -> str:
    """Return a program's output, or an empty text when it is absent or fails."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def engine() -> dict[str, Any]:
    """Return the version of the container engine, and Airlift's images and containers in it."""
    found = re.search(r"version (\d+(?:\.\d+)+)", run("dockerd", "--version"))
    # When the engine is down the client still succeeds, with empty answers.
    info = json.loads(run("docker", "info", "--format", "{{json .}}") or "{}")
    answers = bool(info.get("ServerVersion"))
    containers = run(
        *("docker", "ps", "--no-trunc", "--filter", "label=airlift.service"),
        *("--format", "{{.ID}} {{.Ports}}"),
    )
    return {
        "version": found.group(1) if found else "",
        "answers": answers,
        "driver": info.get("Driver", "") if answers else "",
        "images": run("docker", "image", "ls", "--quiet", "--no-trunc").split(),
        "containers": [line.split()[0] for line in containers.splitlines()],
        "published": sorted({int(port) for port in re.findall(r":(\d+)->", containers)}),
    }


def listeners(ports: set[int]) -> dict[int, set[str]]:
    """Return the socket inodes that listen on each port of interest."""
    found: dict[int, set[str]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rsplit(":", 1)[1], 16)
            if fields[3] == LISTEN and port in ports:
                found.setdefault(port, set()).add(fields[9])
    return found


def owners(inodes: set[str]) -> dict[str, int]:
    """Return the process that holds each socket."""
    found: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        # Processes and their files appear and disappear meanwhile.
        with contextlib.suppress(OSError):
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(link.readlink())
                    inode = target[8:-1] if target.startswith("socket:[") else ""
                    if inode in inodes:
                        found[inode] = int(process.name)
    return found


def taken_ports(ports: set[int], ours: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ports on which other processes than our containers listen."""
    listening = listeners(ports)
    held = owners(set().union(*listening.values())) if listening else {}
    taken = []
    for port, inodes in sorted(listening.items()):
        if port in ours["published"]:
            continue
        pid = next((held[inode] for inode in inodes if inode in held), 0)
        name, group = "an unknown process", ""
        if pid:
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
                group = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
        if not any(container in group for container in ours["containers"]):
            taken.append({"port": port, "process": name, "pid": pid})
    return taken


def forwards() -> bool:
    """Return whether the kernel forwards packets, as a running engine sets it."""
    place = Path("/proc/sys/net/ipv4/ip_forward")
    return not place.exists() or place.read_text(encoding="ascii").strip() != "0"


def has_nf_tables() -> bool:
    """Return whether the kernel reports an nftables generation: this check needs no program."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as kernel:
            kernel.settimeout(3)
            kernel.bind((0, 0))
            kernel.send(struct.pack("=IHHII", 20, NFT_MSG_GETGEN, 1, 1, 0) + b"\0\0\0\0")
            answer = kernel.recv(4096)
    except OSError:
        return False
    kind = struct.unpack_from("=IH", answer)[1]
    if kind != NLMSG_ERROR:
        return True
    code = -struct.unpack_from("=i", answer, 16)[0]
    return code not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


def main() -> None:
    """Entry point."""
    now = time.time()
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "root": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if module.params["root"]:
        found = engine()
        facts = {
            "engine": found,
            "ports_taken": taken_ports(set(module.params["ports"]), found),
            "nf_tables": has_nf_tables(),
            "forwards": forwards(),
            "root": os.geteuid() == 0,
        }
    else:
        facts = {
            "now": now,
            "os": os_release(),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "memory_mb": memory_mb(),
            "space": {path: free_space(path) for path in module.params["paths"]},
            "systemd": Path("/run/systemd/system").is_dir(),
            "client": (os.environ.get("SSH_CONNECTION") or "").split(" ")[0],
        }
    module.exit_json(changed=False, facts=facts)


if __name__ == "__main__":
    main()
