"""Select the addresses of this machine on which a process listens."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network

_SIOCGIFADDR = 0x8915
EVERYWHERE = "0.0.0.0"  # noqa: S104 - inside the container; the host decides what it publishes


def addresses(networks: Sequence[IPv4Network | IPv6Network]) -> list[str]:
    """Return this machine's addresses in `networks`, and loopback; 0.0.0.0 without networks.

    A container may join a network only to reach others on it. It does not listen there.
    """
    if not networks:
        return [EVERYWHERE]
    return ["127.0.0.1", *(str(own) for own in _own() if any(own in one for one in networks))]


def bound(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Return a listening socket per address; raise OSError with the address if one is not free."""
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
                continue  # no IPv4 address on this interface
            found.append(IPv4Address(answer[20:24]))
    return [address for address in found if not address.is_loopback]
