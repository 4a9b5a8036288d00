#!/usr/bin/python
"""Collect all facts that preflight needs from a host, in one call.

It only reads, needs only Python on the host, and omits facts that need root unless it runs as root.
It returns C(facts), and C(clock), the host's time when it began and when it ended.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import socket
import struct
import time
from pathlib import Path
from typing import Any

from ansible.module_utils import (
    engine_client,
    host_neighbours,
    host_shared,
    host_sockets,
    images_state,
)
from ansible.module_utils.host_module import answer
from ansible.module_utils.host_tools import existing, login_address

NETLINK_NETFILTER = 12
NFT_MSG_GETGEN = (10 << 8) | 16
NLMSG_ERROR = 2


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
    place = existing(path)
    status = os.statvfs(place)
    return {
        "device": place.stat().st_dev,
        "existing": str(place),
        "free": status.f_bavail * status.f_frsize,
    }


def engine(components: dict[str, Any]) -> dict[str, Any]:
    """Return the engine's information about itself, and Airlift's containers and images.

    `told` has the form of later tasks' own query, for reuse in the same run.
    """
    info: dict[str, Any] = {}
    images: dict[str, Any] = {}
    said = containers = ""
    try:
        info = engine_client.about_engine(host_neighbours.TIMEOUT)
        images = images_state.look(components, info, 0)
        containers = host_neighbours.said(
            *("docker", "ps", "--no-trunc", "--filter", "label=airlift.service"),
            *("--format", "{{.ID}} {{.Ports}}"),
        )
    except engine_client.NoEngineError:
        pass
    except (engine_client.EngineError, ValueError) as error:
        said = str(error)
    if not images:
        images = images_state.look(components, {}, 0)
    version = info.get("ServerVersion") or host_neighbours.said("dockerd", "--version")
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


def collect(module: Any) -> dict[str, Any]:
    """Return the facts of this host."""
    began, params = time.time(), module.params
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
    return {"facts": facts, "clock": [began, time.time()]}


OPTIONS = {
    # Those whose free space is needed; they need not exist yet.
    "paths": {"type": "list", "elements": "path", "default": []},
    # Those that must be free, or ours.
    "ports": {"type": "list", "elements": "int", "default": []},
    # The certificate of the authority that the host trusts, if it has one already.
    "authority": {"type": "path"},
    # The settings of the shared address, on a host that is to have one.
    "shared": {"type": "dict", "default": {}},
    # Those of the release that the host needs, with the ids of their images.
    "components": {"type": "dict", "default": {}},
}

if __name__ == "__main__":
    answer(collect, OPTIONS)
