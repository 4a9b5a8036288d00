"""The IPv4 addresses of a host, and the interface on which it can have the shared one."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from typing import NamedTuple

from ansible.module_utils.host_tools import RefusedError, run


class Place(NamedTuple):
    """One address of an interface."""

    interface: str
    address: str
    #: Length of the network's prefix.
    prefix: int
    #: Hardware address of the interface.
    mac: str


def places() -> list[Place]:
    """Return the addresses that the host has now, in the kernel's order."""
    done = run("ip", "-json", "address", "show", LC_ALL="C")
    try:
        links = json.loads(done.stdout or "null")
        return [
            Place(
                str(link["ifname"]), str(one["local"]), int(one["prefixlen"]), str(link["address"])
            )
            for link in links
            for one in link.get("addr_info", ())
            if one.get("family") == "inet" and "local" in one and link.get("address")
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = f"ip does not tell the addresses of this host: {(done.stderr or done.stdout)!r}"
        raise RefusedError(message) from None


def holder(found: Sequence[Place], address: str) -> str:
    """Return the interface that has an address; empty if none has."""
    return next((one.interface for one in found if one.address == address), "")


def interface_of(found: Sequence[Place], own: str, shared: str, given: str = "") -> str:
    """Return the interface for a shared address: the given one, or that of the host's own address.

    Refuse one that does not have the host's own address in the network of the shared one: adverts
    come from the former, and neighbours find the latter by ARP.
    """
    wanted = ipaddress.ip_interface(shared)
    here = [one for one in found if one.address != str(wanted.ip)]
    name = given or holder(here, own)
    if not name:
        message = (
            f"no interface of this host has its address {own}: correct site_address, which other "
            "edges must reach without translation, or leave site_shared_address empty"
        )
        raise RefusedError(message)
    places_there = [one for one in here if one.interface == name]
    networks = [
        ipaddress.ip_interface(f"{one.address}/{one.prefix}").network
        for one in places_there
        if one.address == own
    ]
    if wanted.network in networks:
        return name
    said = ", ".join(f"{one.address}/{one.prefix}" for one in places_there)
    message = (
        f"the shared address {shared} is not in the network of {own} on {name} "
        f"({said or 'no IPv4 address'}): correct site_shared_address, its prefix included, or "
        "site_shared_interface"
    )
    raise RefusedError(message)
