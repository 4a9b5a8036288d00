"""Sockets of a host, and the processes that hold them, as its kernel lists them."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

PROC = Path("/proc")
LISTEN = "0A"
#: Open, or being opened. A connection that ends needs no rule.
OPEN = ("01", "02")


class Socket(NamedTuple):
    """One line of the kernel's tables; the peer of one that waits is no address."""

    protocol: str
    local: str
    port: int
    peer: str
    peer_port: int
    state: str
    inode: str


def address_of(text: str) -> str:
    """Return an address that the kernel writes as words of the machine's own byte order."""
    words = [bytes.fromhex(text[place : place + 8])[::-1] for place in range(0, len(text), 8)]
    if len(words) == 1:
        return str(ipaddress.IPv4Address(words[0]))
    address = ipaddress.IPv6Address(b"".join(words))
    return str(address.ipv4_mapped or address)


def sockets(protocols: Iterable[str] = ("tcp", "udp")) -> list[Socket]:
    """Return the sockets of this host, without those of containers."""
    found = []
    for protocol in protocols:
        for table in (PROC / "net" / protocol, PROC / "net" / f"{protocol}6"):
            if not table.exists():
                continue
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                (local, port), (peer, peer_port) = (one.rsplit(":", 1) for one in fields[1:3])
                ends = (address_of(local), int(port, 16), address_of(peer), int(peer_port, 16))
                found.append(Socket(protocol, *ends, fields[3], fields[9]))
    return found


def owners(inodes: set[str]) -> dict[str, int]:
    """Return the process that holds each socket."""
    found: dict[str, int] = {}
    for process in PROC.glob("[0-9]*"):
        # Processes and their files appear and disappear meanwhile.
        with contextlib.suppress(OSError):
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(link.readlink())
                    inode = target[8:-1] if target.startswith("socket:[") else ""
                    if inode in inodes:
                        found[inode] = int(process.name)
    return found


def program_of(pid: int) -> str:
    """Return the name of a process; `the kernel` holds the sockets that no process has."""
    try:
        return (PROC / str(pid) / "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return "the kernel" if not pid else "an unknown process"


def connections(there: Iterable[Socket]) -> list[dict[str, Any]]:
    """Return the connections with other hosts: program, direction, peer, protocol and port.

    The port is the one that is served: ours of a connection that came in, the peer's otherwise.
    """
    there = list(there)
    served = {(one.protocol, one.port) for one in there if one.state == LISTEN}
    away = [
        one
        for one in there
        if one.state in OPEN
        and one.peer_port
        and one.peer != one.local
        and not ipaddress.ip_address(one.peer).is_loopback
    ]
    held = owners({one.inode for one in away} - {"0"}) if away else {}
    found = []
    for one in away:
        inward = (one.protocol, one.port) in served
        found.append(
            {
                "program": program_of(held.get(one.inode, 0)),
                "direction": "in" if inward else "out",
                "address": one.peer,
                "protocol": one.protocol,
                "port": one.port if inward else one.peer_port,
            }
        )
    return found
