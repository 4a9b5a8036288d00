#!/usr/bin/python
"""Collect all facts that preflight needs from a host, in one call; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_facts
short_description: Collect all facts that preflight needs from a host, in one call
description:
  - Reads only. Omits facts that need root unless it runs as root.
  - Needs only Python on the host.
options:
  paths:
    description: Paths whose free space is needed. They need not exist yet.
    type: list
    elements: path
    default: []
  ports:
    description: Ports that must be free, or ours.
    type: list
    elements: int
    default: []
  authority:
    description: The certificate of the authority that the host trusts, if it has one already.
    type: path
  shared:
    description: The settings of the shared address, on a host that is to have one.
    type: dict
    default: {}
  components:
    description: Components of the release that the host needs, with the ids of their images.
    type: dict
    default: {}
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
clock:
  description: The host's time when the module began and when it ended.
  returned: always
  type: list
  elements: float
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

from ansible.module_utils import (  # noqa: E402
    engine_client,
    host_neighbours,
    host_shared,
    host_sockets,
    images_state,
)
from ansible.module_utils.basic import AnsibleModule  # noqa: E402

NETLINK_NETFILTER = 12
NFT_MSG_GETGEN = (10 << 8) | 16
NLMSG_ERROR = 2
#: Timeout of a program, in seconds.
TIMEOUT = 20


def os_release() -> dict[str, str]:
    """Return the system's os-release fields."""
    text = Path("/etc/os-release").read_text(encoding="utf-8")
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {
        "id": pairs.get("ID", "").strip('"'),
        "version": pairs.get("VERSION_ID", "").strip('"'),
        "name": pairs.get("PRETTY_NAME", "").strip('"'),
    }


def memory_mb() -> int:
    """Return the host's memory in MB."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def free_space(path: str) -> dict[str, Any]:
    """Return the free space at a path that may not exist yet."""
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
    """Return a program's output; empty if it is missing or fails."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def login_address() -> str:
    """Return the address of the SSH client, which sudo does not pass to root."""
    pid = os.getpid()
    # The environment of a parent process may belong to another user; only root can read it.
    with contextlib.suppress(OSError, ValueError):
        while pid > 1:
            process = Path(f"/proc/{pid}")
            for entry in (process / "environ").read_bytes().split(b"\0"):
                if entry.startswith(b"SSH_CONNECTION="):
                    return entry.partition(b"=")[2].split(b" ")[0].decode("ascii")
            pid = int((process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    return ""


def engine(components: dict[str, Any]) -> dict[str, Any]:
    """Return the engine's information about itself, and Airlift's containers and images.

    `told` has the form of later tasks' own query, for reuse in the same run.
    """
    info: dict[str, Any] = {}
    images: dict[str, Any] = {}
    said = containers = ""
    try:
        info = engine_client.about_engine(TIMEOUT)
        images = images_state.look(components, info, 0)
        containers = run(
            *("docker", "ps", "--no-trunc", "--filter", "label=airlift.service"),
            *("--format", "{{.ID}} {{.Ports}}"),
        )
    except engine_client.NoEngineError:
        pass
    except (engine_client.EngineError, ValueError) as error:
        said = str(error)
    if not images:
        images = images_state.look(components, {}, 0)
    version = info.get("ServerVersion") or run("dockerd", "--version")
    found = re.search(r"\d+(?:\.\d+)+", version)
    return {
        "version": found.group(0) if found else "",
        "said": said,
        "told": {"rc": 0, "stdout": json.dumps(info)} if info else {},
        "images": images,
        "containers": [line.split()[0] for line in containers.splitlines()],
        "published": sorted({int(port) for port in re.findall(r":(\d+)->", containers)}),
    }


def taken_ports(ports: set[int], ours: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ports on which other processes than our containers listen."""
    listening: dict[int, set[str]] = {}
    for one in host_sockets.sockets(("tcp",)):
        if one.state == host_sockets.LISTEN and one.port in ports:
            listening.setdefault(one.port, set()).add(one.inode)
    held = host_sockets.owners(set().union(*listening.values())) if listening else {}
    taken = []
    for port, inodes in sorted(listening.items()):
        if port in ours["published"]:
            continue
        pid = next((held[inode] for inode in inodes if inode in held), 0)
        name, group = "an unknown process", ""
        if pid:
            name = host_sockets.program_of(pid)
            with contextlib.suppress(OSError):
                group = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
        if not any(container in group for container in ours["containers"]):
            taken.append({"port": port, "process": name, "pid": pid})
    return taken


def forwards() -> bool:
    """Return whether the kernel forwards packets, which a running engine enables."""
    place = Path("/proc/sys/net/ipv4/ip_forward")
    return not place.exists() or place.read_text(encoding="ascii").strip() != "0"


def authority(path: str | None) -> str:
    """Return a certificate, or nothing where there is none yet."""
    try:
        with Path(path or "").open(encoding="ascii") as file:
            return file.read(1 << 16)
    except (OSError, UnicodeDecodeError):
        return ""


def has_nf_tables() -> bool:
    """Return whether the kernel supports nftables; this check needs no program."""
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
    """Run the module."""
    began = time.time()
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "authority": {"type": "path"},
            "shared": {"type": "dict", "default": {}},
            "components": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    facts = {
        "os": os_release(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "memory_mb": memory_mb(),
        "space": {path: free_space(path) for path in params["paths"]},
        "systemd": Path("/run/systemd/system").is_dir(),
        "client": login_address(),
    }
    if os.geteuid() == 0:
        found = engine(params["components"])
        facts["engine"] = found
        facts["ports_taken"] = taken_ports(set(params["ports"]), found)
        facts["nf_tables"] = has_nf_tables()
        facts["forwards"] = forwards()
        facts["neighbours"] = host_neighbours.neighbours()
        sockets = host_sockets.sockets()
        facts["connections"] = host_sockets.connections(sockets) + host_neighbours.needed()
        facts["authority"] = authority(params["authority"])
        facts["shared_address"] = host_shared.look(params["shared"])
    module.exit_json(changed=False, facts=facts, clock=[began, time.time()])


if __name__ == "__main__":
    main()
