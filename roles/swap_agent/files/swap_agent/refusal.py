"""A table of this host that refuses new connections to replicas that are out.

After a reload Nginx's old workers serve open connections for a while without knowing the mark, and
a reload may have to wait. A refused connection never carried a request, so Nginx tries the next
server, whatever the method. Established connections stay: they may still be answered. The host's
own checks do not pass this table. Its elements expire, so a daemon that has ended blocks nothing.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Collection

TABLE = "airlift_replicas"
#: Seconds that a block lasts, and after which it is renewed.
LASTS = 15.0
RENEWED = 5.0


def ruleset(out: Collection[str]) -> str:
    """Return the script that sets the table to exactly these addresses, in one transaction."""
    gone = f"table inet {TABLE}\ndelete table inet {TABLE}\n"
    elements = ", ".join(address.replace(":", " . ") for address in sorted(out))
    if not elements:
        return gone
    # Match before the translation of destinations: a port published by this host is an address too.
    return f"""{gone}table inet {TABLE} {{
	set out {{
		type ipv4_addr . inet_service
		flags timeout
		timeout {LASTS:.0f}s
		elements = {{ {elements} }}
	}}
	chain refuse {{
		type filter hook prerouting priority mangle
		iifname != "lo" ct state new ip daddr . tcp dport @out reject with tcp reset
	}}
}}
"""


def _numeric(address: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(address.rpartition(":")[0]))
    except ValueError:
        return False


class Refusal:
    """The table as it was last loaded."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._until = float("-inf")

    def keep(self, out: Collection[str], clock: float) -> str:
        """Refuse connections to these addresses and no others; return the error, if any."""
        wanted = {address for address in out if _numeric(address)}
        if wanted == self._held and (not wanted or clock < self._until):
            return ""
        try:
            done = subprocess.run(
                ["nft", "-f", "-"],
                input=ruleset(wanted),
                capture_output=True,
                text=True,
                timeout=5,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"cannot refuse connections; only the marks apply: {error}"
        if done.returncode != 0:
            said = " ".join(done.stderr.split())[:200]
            return f"cannot refuse connections; only the marks apply: nft: {said}"
        self._held, self._until = wanted, clock + RENEWED
        return ""
