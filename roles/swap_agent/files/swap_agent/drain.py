"""Take app hosts out of service for maintenance, and put them back: each as a generation."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from swap_agent import drained, lease, probe, watch
from swap_agent.nginx import UPSTREAM_FILE, Edge
from swap_agent.replicas import SUCCESSES, Server, servers
from swap_agent.state import SwapError, now
from swap_agent.swap import ALONE, Together, installed, lease_file, move, rehearse

#: Checks of a host before it counts as failing, and seconds between two checks.
CHECKS = 10
PAUSE = 0.5


async def _checked(address: str, wanted: int) -> str:
    """Return an empty text after so many valid answers in a row, else the last reason."""
    why, good = "", 0
    for attempt in range(CHECKS):
        await asyncio.sleep(PAUSE if attempt else 0)
        try:
            why = await asyncio.wait_for(probe.ask(address), probe.LIFETIME / 5)
        except asyncio.TimeoutError:
            why = "no answer"
        good = 0 if why else good + 1
        if good >= wanted:
            return ""
        # Of one that may not serve at all, a few reasons are enough.
        if why and wanted == 1 and attempt >= 2:
            break
    return why or "it does not answer every time"


async def _all(addresses: Sequence[str]) -> list[str]:
    return list(await asyncio.gather(*(_checked(one, 1) for one in addresses)))


def _active(text: str) -> list[Server]:
    """Return the servers of the active colour."""
    return [one for one in servers(text) if not one.backup]


def refusal(edge: Edge, hosts: Collection[str]) -> str:
    """Return why these hosts may not leave; empty while another app host serves.

    The others are checked now, from here: the watch may have ended, and keeps the last one in.
    """
    there = _active(edge.upstream())
    others = [one for one in there if one.name not in hosts]
    known = watch.shown(edge.settings.watch_dir)["replicas"]
    marked = {one.name: one for one in others if one.down}
    asked = [one for one in others if not one.down]
    found = dict(
        zip((one.name for one in asked), asyncio.run(_all([one.address for one in asked])))
    )
    if "" in found.values():
        return ""
    out = [f"{name} does not serve ({why})" for name, why in found.items()]
    out += [f"{name} does not serve ({_why(known, name)})" for name in marked]
    out += drained.in_words(drained.load(edge.settings), [*drained.load(edge.settings)])
    who = ", ".join(one.name for one in there if one.name in hosts)
    if not out:
        return f"{who} is the only app host of this site: without it nothing would answer"
    return (
        f"{who} would leave no app host that serves: {'; '.join(out)}. Bring one of them back first"
    )


def unknown(edge: Edge, *hosts: str) -> str:
    """Return that the edge does not have these hosts."""
    there = [*drained.names(edge.upstream()), *drained.load(edge.settings)]
    return f"the edge has no app host {', '.join(hosts)}; its app hosts are {', '.join(there)}"


def _why(known: dict[str, Any], name: str) -> str:
    one = known.get(name)
    return str(one.get("why") or "no answer") if isinstance(one, dict) else "no answer"


def drain(
    edge: Edge,
    *,
    run: str,
    hosts: Sequence[str],
    look: bool,
    gone: bool,
    how: Together = ALONE,
) -> dict[str, Any]:
    """Take hosts out; return when the requests that were sent to them have ended.

    With `look`, only refuse what the command would refuse. `gone` is for hosts that left the
    inventory: one that does not serve itself may be the last.
    """
    held = installed(edge)
    before = drained.load(edge.settings)
    serving = [one.name for one in _active(edge.upstream()) if one.name in hosts]
    strange = [one for one in hosts if one not in before and one not in serving]
    if strange and not gone:
        raise SwapError(unknown(edge, *strange))
    why = refusal(edge, serving) if serving else ""
    if why and gone and not _answers(edge, serving):
        return {"changed": False, "why": why, "drained": before}
    if why:
        raise SwapError(why)
    if look:
        return {"changed": False, "why": "", "drained": before}
    holder = lease.check(lease_file(edge), run)
    fresh = {one: {"by": holder.owner, "since": now()} for one in serving if one not in before}
    if how.test:
        return rehearse(edge, held, {**before, **fresh})
    if fresh:
        drained.save(edge.settings, {**before, **fresh})
    try:
        done = move(edge, run, held, held, how=how)
    except SwapError:
        # Where it did not come into effect, nothing was drained.
        if set(fresh) & set(drained.names(edge.upstream())):
            drained.save(edge.settings, before)
        raise
    return {**done, "drained": drained.load(edge.settings)}


def _answers(edge: Edge, hosts: Collection[str]) -> bool:
    """Return whether one of these hosts answers."""
    addresses = [one.address for one in _active(edge.upstream()) if one.name in hosts]
    return "" in asyncio.run(_all(addresses))


def bring_back(edge: Edge, *, run: str, host: str, how: Together = ALONE) -> dict[str, Any]:
    """Put a host back that answers well, several times in a row."""
    lease.check(lease_file(edge), run)
    held = installed(edge)
    before = drained.load(edge.settings)
    # An earlier run may have ended after it had removed the record: the host is out all the same.
    if host in before or host not in drained.names(edge.upstream()):
        wanted = edge.wanted(held)[UPSTREAM_FILE].read_text()
        address = [one.address for one in _active(wanted) if one.name == host]
        if not address:
            raise SwapError(unknown(edge, host))
        if why := asyncio.run(_checked(address[0], SUCCESSES)):
            raise SwapError(f"{host} stays drained, because it is not ready for the edge: {why}")
        left = {name: one for name, one in before.items() if name != host}
        if how.test:
            return rehearse(edge, held, left)
        drained.save(edge.settings, left)
    try:
        done = move(edge, run, held, held, how=how)
    except SwapError:
        if host in before and host not in drained.names(edge.upstream()):
            drained.save(edge.settings, before)
        raise
    return {**done, "drained": drained.load(edge.settings)}


def forget(edge: Edge) -> None:
    """Remove the records of hosts that the wanted configuration no longer has."""
    held = drained.load(edge.settings)
    if not held:
        return
    there = drained.names(edge.wanted(installed(edge))[UPSTREAM_FILE].read_text())
    kept = {name: one for name, one in held.items() if name in there}
    if there and kept != held:
        drained.save(edge.settings, kept)
