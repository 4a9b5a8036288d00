"""On which of this machine's own addresses a process listens."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network

_SIOCGIFADDR = 0x8915
EVERYWHERE = "0.0.0.0"  # noqa: S104 - inside the container; the host publishes what it wants


def addresses(networks: Sequence[IPv4Network | IPv6Network]) -> list[str]:
    """Return the own addresses in these networks, and loopback; without networks, all there are.

    A container that is on a network only to reach others there is not reached from it.
    """
    if not networks:
        return [EVERYWHERE]
    return ["127.0.0.1", *(str(own) for own in _own() if any(own in one for one in networks))]


def bound(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Return a listening socket for each address."""
    sockets = []
    for host in hosts:
        try:
            sockets.append(socket.create_server((host, port), backlog=128))
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {reason}") from None
    return sockets


def _own() -> list[IPv4Address]:
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name[:15].encode()))
            except OSError:
                continue  # no IPv4 there
            found.append(IPv4Address(answer[20:24]))
    return [address for address in found if not address.is_loopback]
