"""Decide which addresses `api` sources may connect to.

The site's list names hosts. Each address that a name resolves to is checked at each connection. An
address that is neither public nor in one of the site's networks is blocked, in any notation.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from app.sources.base import RefusedSourceError, TransientSourceError
from app.threads import alone

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

BLOCKED = "blocked_address"
# Prefixes that embed an IPv4 address (translation, 6to4), and the number of bits after it.
_CARRIERS = (
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("64:ff9b:1::/48"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
    (ipaddress.IPv6Network("::/96"), 0),
)
_NEVER = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::/32"),
)


def literal(host: str) -> Address | None:
    """Return the address that a host is written as, including notations of `inet_aton`, or None."""
    host = host.strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        # 127.1, 0x7f.0.0.1, 017700000001, 2130706433
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    except (OSError, ValueError):
        return None


def hidden(url: str) -> bool:
    """Return whether an invalid URL still names a blocked address, such as 0177.0.0.1."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    address = literal(host) if host else None
    return address is not None and blocked(address)


def inside(address: Address) -> list[Address]:
    """Return an address, and the IPv4 address that it embeds, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    found: list[Address] = [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address.teredo is not None:
        found.append(address.teredo[1])
    found += [
        ipaddress.IPv4Address((int(address) >> bits) & 0xFFFFFFFF)
        for network, bits in _CARRIERS
        if address in network
    ]
    return found


def blocked(address: Address, networks: Sequence[Network] = ()) -> bool:
    """Return whether names must not resolve to `address`; `networks` are the site's own."""
    return any(_blocked(one, networks) for one in inside(address))


def _blocked(address: Address, networks: Sequence[Network]) -> bool:
    never = address.is_loopback or address.is_unspecified or address.is_multicast
    if never or any(address in network for network in _NEVER):
        return True
    return not (address.is_global or any(address in network for network in networks))


def refuse() -> RefusedSourceError:
    """Return the error for a blocked address; it does not name the address."""
    return RefusedSourceError(
        BLOCKED,
        "the source leads to this machine, a private network that is not this site's, or another "
        "address that is not for sources",
    )


async def resolve(host: str, port: int, networks: Sequence[Network]) -> str:
    """Return the address to connect to; a literal address must be on the site's list already."""
    if literal(host) is not None:
        return host
    try:
        # Do not use the event loop's few resolver threads: connections to Postgres need them.
        found = await alone("name", lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        raise TransientSourceError(
            "name-not-found", "the source's name cannot be resolved"
        ) from None
    for *_rest, address in found:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        if not blocked(ip, networks):
            return str(ip)
    raise refuse()
