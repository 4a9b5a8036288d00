"""Which addresses `api` sources may connect to.

A site's own list names hosts. What a name leads to is judged here, each time: an address that is
neither public nor in one of the site's networks is blocked, in whatever form it is written.
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
# Prefixes that carry an IPv4 address, and how many bits follow it: translation and 6to4.
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
    """The address that a host is written as, also in the forms that only `inet_aton` knows."""
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
    """Whether what is no proper URL still names an address that is blocked, such as 0177.0.0.1."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    address = literal(host) if host else None
    return address is not None and blocked(address)


def inside(address: Address) -> list[Address]:
    """An address, and the IPv4 address that it carries if it does."""
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
    """Whether a name may not lead to `address`; `networks` are the site's own."""
    return any(_blocked(one, networks) for one in inside(address))


def _blocked(address: Address, networks: Sequence[Network]) -> bool:
    never = address.is_loopback or address.is_unspecified or address.is_multicast
    if never or any(address in network for network in _NEVER):
        return True
    return not (address.is_global or any(address in network for network in networks))


def refuse() -> RefusedSourceError:
    """The error for an address that is blocked; it does not say which one it is."""
    return RefusedSourceError(
        BLOCKED,
        "the source leads to this machine, a private network that is not this site's, or another "
        "address that is not for sources",
    )


async def resolve(host: str, port: int, networks: Sequence[Network]) -> str:
    """The address to connect to; a host that is an address is one that the site's list names."""
    if literal(host) is not None:
        return host
    try:
        # Not with the event loop's few threads for names: connections to Postgres need them.
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
