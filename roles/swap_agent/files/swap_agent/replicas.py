"""Which replicas get requests, from the upstream file and from their answers.

Only counts and decides; `watch` checks and acts. Callers pass the time, so that tests choose it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Sequence

#: Failures in a row that take a replica out, and successes that bring it back.
FAILURES = 3
SUCCESSES = 3
#: Answers that arrive together, after a host was frozen, are one success.
APART = 0.5
#: A server of the upstream file, as the role writes it.
_SERVER = re.compile(
    r"^(?P<head>\s*server (?P<address>[^\s;]+)(?P<options>[^;#]*?))"
    r"(?P<down> down)?; # (?P<name>.+)$"
)
_BLOCK = "upstream app {"


@dataclasses.dataclass(frozen=True)
class Server:
    """One server for requests of clients; the mark `down` excludes it."""

    name: str
    address: str
    backup: bool
    down: bool


def _lines(text: str) -> Iterator[tuple[str, re.Match[str] | None]]:
    """Yield each line, with its match where it is a server of clients' requests.

    The preview's servers do not count: the preview shows them whatever their state.
    """
    inside = False
    for line in text.split("\n"):
        inside = line.startswith(_BLOCK) or (inside and line != "}")
        yield line, _SERVER.match(line) if inside else None


def servers(text: str) -> list[Server]:
    """Return the servers of an upstream file, in its order."""
    return [
        Server(
            name=found["name"],
            address=found["address"],
            backup="backup" in found["options"].split(),
            down=found["down"] is not None,
        )
        for _, found in _lines(text)
        if found
    ]


def downs(text: str) -> set[str]:
    """Return the addresses that an upstream file marks."""
    return {server.address for server in servers(text) if server.down}


def marked(text: str, out: Collection[str]) -> str:
    """Return an upstream file with the mark at the servers in `out` and nowhere else.

    Where a group would be left without a server, none of it is marked.
    """
    there = servers(text)
    for backup in (False, True):
        group = {server.address for server in there if server.backup is backup}
        if group <= set(out):
            out = set(out) - group
    return "\n".join(
        f"{found['head']}{' down' if found['address'] in out else ''}; # {found['name']}"
        if found
        else line
        for line, found in _lines(text)
    )


def blocked(text: str, out: Collection[str]) -> set[str]:
    """Return the servers of `out` to which new connections may be refused already.

    Marks follow later: a server that is still marked gets no requests, so the failing one has to
    stay until the other is back.
    """
    found: set[str] = set()
    for backup in (False, True):
        group = [server for server in servers(text) if server.backup is backup]
        left = [server for server in group if not server.down and server.address not in out]
        found |= {one.address for one in group if one.address in out and (left or one.down)}
    return found


def urgent(group: Sequence[Replica], held: Collection[str]) -> bool:
    """Return whether only marked replicas are well, so that a mark has to go at once."""
    well = {one.address for one in group if one.well}
    return bool(well) and well <= set(held)


@dataclasses.dataclass
class Replica:
    """One server and its latest answers."""

    name: str
    address: str
    backup: bool
    out: bool
    since: str
    failures: int = 0
    successes: int = 0
    #: When it last answered 200, by a monotonic clock, and in UTC.
    answered: float = float("-inf")
    last: str | None = None
    #: The last failure; it describes the present state only while the replica fails.
    why: str = ""
    taken_out: int = 0

    def good(self, clock: float, time: str) -> None:
        """Count an answer 200, however late it came."""
        self.failures = 0
        self.successes += clock - self.answered >= APART
        self.answered, self.last = clock, time

    def bad(self, why: str) -> None:
        """Count a failure."""
        self.failures, self.successes, self.why = self.failures + 1, 0, why

    def silent(self, sent: float, why: str) -> None:
        """Count a probe without an answer in time, unless an earlier one was answered since.

        A slow line answers late, but all the time; a frozen host answers nothing.
        """
        if self.answered < sent:
            self.bad(why)

    @property
    def well(self) -> bool:
        """Whether it gets requests and answered its last check."""
        return not self.out and self.failures == 0 and self.successes > 0

    def turn(self, time: str, *, out: bool) -> None:
        """Take it out, or bring it back."""
        self.out, self.since = out, time
        self.taken_out += out


def judge(group: Sequence[Replica], time: str) -> list[Replica]:
    """Take replicas out or bring them back; return those that changed.

    A replica is taken out only while another is well: the last one stays, and if all share a cause
    (Postgres restarts), all stay. If those in service fail, one answer brings a replica back.
    """
    before = [replica.out for replica in group]
    alone = all(before)
    enough = 1 if all(one.failures for one in group if not one.out) else SUCCESSES
    for replica in group:
        if replica.out and (alone or replica.successes >= enough):
            replica.turn(time, out=False)
    for replica in group:
        others = any(other.well for other in group if other is not replica)
        if not replica.out and replica.failures >= FAILURES and others:
            replica.turn(time, out=True)
    return [one for one, was in zip(group, before) if one.out is not was]
