"""An edge that follows: it puts in place what the lead serves, under the same generation number."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable
from typing import Any

from swap_agent import drained, edges
from swap_agent.edges import Offer, Verdict
from swap_agent.nginx import Edge, fingerprint
from swap_agent.state import BusyError, State, SwapError, exclusive, now, parsed
from swap_agent.swap import put_in_place, rehearse, told

#: Seconds that an edge may be behind while a run changes the edges one after the other. Until all
#: are changed, no run stops what the last one serves. Without this, each run would move an address.
GRACE = 30.0
METRICS = "edges.prom"
#: Seconds until an edge tries again what failed.
RETRY = 15.0


def record_of(text: str) -> tuple[State, drained.Drained]:
    """Return the record that a lead answered; SwapError if it is none."""
    try:
        return edges.record_of(parsed(text))
    except ValueError as error:
        raise SwapError(f"the record of the lead cannot be read: {error}") from error


def stage(edge: Edge, state: State, out: drained.Drained) -> dict[str, Any]:
    """Test what this edge would serve after the lead; change nothing."""
    return rehearse(edge, state, here(edge, state, out))


def here(edge: Edge, state: State, out: drained.Drained) -> drained.Drained:
    """Return the drained hosts that this edge's configuration has."""
    there = drained.names(edge.wanted(state)["upstream.conf"].read_text())
    return {host: one for host, one in out.items() if host in there}


def adopt(edge: Edge, state: State, out: drained.Drained, *, later: bool = False) -> dict[str, Any]:
    """Serve what another edge serves.

    A number stands for one generation, so the same number changes nothing here, and a lower one is
    refused: a run that was replaced can then do no harm.
    """
    settings = edge.settings
    held, live = State.load(settings.state_file), edge.live_generation()
    if state.generation < live:
        raise SwapError(
            f"this edge serves generation {live}, which is newer than {state.generation}: run the "
            "same command again"
        )
    before = edge.workers() if edge.running() else set()
    hosts, wanted = drained.load(settings), here(edge, state, out)
    if hosts != wanted:
        drained.save(settings, wanted)
    changed = False
    try:
        if state.generation > live:
            put_in_place(edge, state, state.generation)
            changed = True
        else:
            changed = _same(edge, held, state)
    except SwapError:
        if hosts != wanted and edge.live_generation() == live:
            drained.save(settings, hosts)
        raise
    if not later:
        edge.wait_until_gone(before if changed else edge.workers(retiring=True))
    return {"changed": changed or held != state or hosts != wanted, **told(edge, state)}


def _same(edge: Edge, held: State | None, state: State) -> bool:
    """Record a generation that is live already; return whether Nginx had to reload."""
    live = edge.live_generation()
    wanted = fingerprint(edge.wanted(state), edge.drained())
    if held != state and wanted != fingerprint(edge.served()):
        raise SwapError(
            f"this edge serves something else under the same generation, {live}; run install.yml"
        )
    # An earlier command may have ended between the rename and the reload.
    late = edge.running() and edge.answered() not in {None, live}
    if late:
        edge.reload(live)
    if held != state:
        state.save(edge.settings.state_file)
    return late


def take_over(edge: Edge, name: str) -> dict[str, Any]:
    """Serve what a named edge serves: for an operator, on the edge that asks."""
    address = edge.settings.edges.get(name)
    if address is None:
        known = ", ".join(edge.settings.edges) or "none"
        raise SwapError(f"{name} is no other edge of this site; the others are {known}")
    try:
        found = edges.ask(name, address)
    except SwapError as error:
        raise SwapError(f"{name} does not say what it serves: {error}") from error
    fitting(edge, found)
    return adopt(edge, found.state, found.drained)


def fitting(edge: Edge, found: Offer) -> None:
    """Refuse an offer that this edge's own configuration cannot serve as the other does."""
    out = here(edge, found.state, found.drained)
    if edges.shared(edge.wanted(found.state), out) != found.shared:
        raise SwapError(
            f"{found.name} serves generation {found.state.generation} with another configuration "
            f"than this edge has (release {found.state.release}); run install.yml"
        )


def settle(edge: Edge) -> dict[str, Any]:
    """Return when no old worker of Nginx serves any more."""
    if edge.running():
        edge.wait_until_gone(edge.workers(retiring=True))
    return {"changed": False}


class Follower:
    """The part of the watch that compares this edge with the others."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.clock = time.monotonic
        self._joined = False
        self._behind_since: float | None = None
        self._failed = ""
        self._again = float("-inf")
        self._said = ""

    async def comparing(self) -> None:
        """Offer what this edge serves, read what the others serve, and follow."""
        while self.edge.settings.edges:
            await asyncio.get_running_loop().run_in_executor(None, self.compare)
            await asyncio.sleep(edges.PAUSE)
        await asyncio.Event().wait()

    def compare(self) -> None:
        """Compare once; the result is in a file, for `fit` and `show`."""
        unfit = ""
        seen: dict[str, Any] = {}
        try:
            edges.write(self.edge)
            mine = edges.offer(self.edge)
            found, seen = self._others()
            if mine is None:
                unfit = "it serves nothing yet; run install.yml"
            else:
                unfit = self._decide(mine, found, seen)
        except (SwapError, OSError) as error:
            unfit = str(error)
        self._tell(unfit, seen)

    def _others(self) -> tuple[list[Offer], dict[str, Any]]:
        found: list[Offer] = []
        seen: dict[str, Any] = {}
        for name, address in self.edge.settings.edges.items():
            try:
                one = edges.ask(name, address)
            except SwapError as error:
                seen[name] = {"why": str(error)}
                continue
            found.append(one)
            seen[name] = {"generation": one.state.generation, "active": one.state.active, "why": ""}
        return found, seen

    def _decide(self, mine: Offer, found: list[Offer], seen: dict[str, Any]) -> str:
        """Return why this edge is unfit; first put in place what it may."""
        verdict = self._judged(mine, found)
        if verdict.adopt is not None:
            if self.clock() < self._again:
                return self._failed
            # Until that is in place, no traffic: it takes seconds, and may wait for a slow engine.
            self._tell(verdict.unfit, seen)
            self._failed = self._follow(verdict.adopt)
            self._again = self.clock() + (RETRY if self._failed else 0.0)
            if self._failed:
                return self._failed
            edges.write(self.edge)
            # The next comparison sees whether a run has begun meanwhile.
            self._joined, self._behind_since = False, None
            return ""
        return verdict.unfit

    def _judged(self, mine: Offer, found: list[Offer]) -> Verdict:
        clock = self.clock()
        late = self._behind_since is not None and clock - self._behind_since > GRACE
        lead = self.edge.settings.lead
        verdict = edges.judge(mine, found, lead, joined=self._joined and not late)
        if not verdict.behind:
            # Alone it is as new as can be known. But only a run that was seen to begin excuses what
            # follows: an edge that was frozen or cut off may have missed others before it.
            self._joined, self._behind_since = any(one.run for one in found), None
        elif self._behind_since is None:
            self._behind_since = clock
        return verdict

    def _follow(self, offer: Offer) -> str:
        """Put an offer in place; return why that failed."""
        try:
            with exclusive(self.edge.settings, patience=0):
                fitting(self.edge, offer)
                adopt(self.edge, offer.state, offer.drained, later=True)
        except BusyError:
            return "another airlift-swap changes this edge"
        except (SwapError, OSError) as error:
            return str(error)
        _log(f"adopted generation {offer.state.generation} of {offer.name}")
        return ""

    def _tell(self, unfit: str, seen: dict[str, Any]) -> None:
        if unfit != self._said:
            _log(f"unfit: {unfit}" if unfit else "fit again")
            self._said = unfit
        folder = self.edge.settings.watch_dir
        told = {"clock": self.clock(), "checked": now(), "unfit": unfit, "edges": seen}
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            edges.put(folder / edges.FILE, json.dumps(told, indent=1, sort_keys=True) + "\n")
            edges.put(folder / METRICS, "\n".join(_metrics(unfit)) + "\n")
        except OSError as error:
            _log(f"cannot write to {folder}: {error.strerror}")


def _metrics(unfit: str) -> Iterable[str]:
    """Return the metrics for Prometheus' node exporter."""
    yield "# TYPE airlift_edge_fit gauge"
    yield f"airlift_edge_fit {int(not unfit)}"


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
