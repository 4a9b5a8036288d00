"""What a host knows of the address that it is to share: where it goes, and who has it now."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import struct
import time
from pathlib import Path
from typing import Any

from ansible.module_utils import host_addresses
from ansible.module_utils.host_tools import PLACES, RefusedError

ETHERNET_ARP = 0x0806
BROADCAST = b"\xff" * 6
REQUEST, REPLY = 1, 2
#: Hardware type, protocol type, their lengths, operation; then both pairs of addresses.
ARP = struct.Struct("!HHBBH6s4s6s4s")
#: Times that the segment is asked, and seconds to wait for answers each time.
TIMES, SECONDS = 2, 0.5


def request(mac: bytes, own: str, wanted: str) -> bytes:
    """Return the frame that asks the segment who has an address."""
    arp = ARP.pack(
        *(1, 0x0800, 6, 4, REQUEST),
        *(mac, socket.inet_aton(own), bytes(6), socket.inet_aton(wanted)),
    )
    return BROADCAST + mac + struct.pack("!H", ETHERNET_ARP) + arp


def answer_in(frame: bytes, wanted: str) -> str:
    """Return the hardware address that has the wanted address, as a frame says; empty if none."""
    if len(frame) < 14 + ARP.size or frame[12:14] != struct.pack("!H", ETHERNET_ARP):
        return ""
    said = ARP.unpack(frame[14 : 14 + ARP.size])
    if said[4] != REPLY or said[6] != socket.inet_aton(wanted):
        return ""
    return ":".join(f"{one:02x}" for one in said[5])


def who_has(place: host_addresses.Place, wanted: str) -> list[str]:
    """Return the hardware addresses of the segment that answer for an address.

    No firewall table of IP concerns ARP, so this works before and after an installation.
    """
    found: set[str] = set()
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERNET_ARP)) as link:
            link.bind((place.interface, ETHERNET_ARP))
            mac = bytes.fromhex(place.mac.replace(":", ""))
            for _ in range(TIMES):
                link.send(request(mac, place.address, wanted))
                end = time.monotonic() + SECONDS
                while (left := end - time.monotonic()) > 0:
                    link.settimeout(left)
                    with contextlib.suppress(socket.timeout):
                        found.add(answer_in(link.recv(2048), wanted))
    except (OSError, ValueError):
        return []  # an interface without Ethernet: nothing can be asked there
    return sorted(found - {"", place.mac})


def peers_of(path: Path) -> list[str]:
    """Return the addresses with which keepalived shares by now, without this host itself."""
    try:
        found = re.search(r"unicast_peer \{([^}]*)\}", path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    lines = found[1].splitlines() if found else []
    return [line.split()[0] for line in lines if line.strip() and "127.0.0.1" not in line]


def look(given: dict[str, Any]) -> dict[str, Any]:
    """Return the facts; `given` has the settings and the path of our configuration."""
    path = Path(given.get("path") or "/nonexistent")
    facts: dict[str, Any] = {
        "configured": path.exists(),
        "peers": peers_of(path),
        "installed": bool(shutil.which("keepalived", path=PLACES)),
        **dict.fromkeys(("problem", "interface", "mac", "held"), ""),
        "answered": [],
    }
    shared = str(given.get("shared") or "")
    if not shared:
        return facts
    wanted = shared.partition("/")[0]
    try:
        found = host_addresses.places()
        name = host_addresses.interface_of(found, given["own"], shared, given["interface"])
    except (RefusedError, ValueError) as error:
        return {**facts, "problem": str(error)}
    place = next(one for one in found if one.interface == name and one.address != wanted)
    held = host_addresses.holder(found, wanted)
    answered = [] if held else who_has(place, wanted)
    return {**facts, "interface": name, "mac": place.mac, "held": held, "answered": answered}
