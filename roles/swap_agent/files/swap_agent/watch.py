"""The daemon: checks every replica each second, and keeps requests from those that are not ready.

Nginx itself notices only failures of the requests that it passes, and a frozen host accepts
connections and never answers. Here a replica that fails three times in a row gets the mark `down`
in the live tree; three successes remove it. Nginx then reloads, without a new generation.
After a start, or without a running Nginx, nothing changes until replicas were checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from swap_agent import probe
from swap_agent.edges import put
from swap_agent.nginx import GENERATION_FILE, Edge
from swap_agent.refusal import Refusal
from swap_agent.replicas import Replica, blocked, downs, judge, marked, servers, urgent
from swap_agent.state import COLOURS, BusyError, SwapError, exclusive, now, parsed

Comparing = Callable[[], Coroutine[Any, Any, None]]

INTERVAL = 1.0
#: Seconds between two reloads of Nginx.
RELOADS = 10.0
#: Seconds after which results are too old for a working watch.
STALE = 10.0
STATE = "replicas.json"
METRICS = "replicas.prom"
#: The fields of the file that are read back; `clock` is always there.
_SHAPE: dict[str, tuple[type, ...]] = {
    "clock": (int, float),
    "reloads": (int,),
    "reloaded": (int, float),
    "generation": (int,),
    "taken_out": (dict,),
    "served": (list,),
    "replicas": (dict,),
    "standby_replicas": (dict,),
}


class Watch:
    """The replicas of the live tree, and the marks that Nginx has."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.board: dict[str, Replica] = {}
        self.colour = COLOURS[0]
        self.refusal = Refusal()
        self.clock = time.monotonic
        self.news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._said: dict[str, str] = {}
        before = _read(edge.settings.watch_dir / STATE)
        self.reloads = int(before.get("reloads", 0))
        # The clock is the same for every process until the next boot, and then the file is gone.
        self.reloaded = float(before.get("reloaded", "-inf"))
        self._taken_out: dict[str, int] = before.get("taken_out", {})
        #: The marks that Nginx runs with: a watch that ended may not have reloaded it.
        self.generation = edge.live_generation()
        same = before.get("generation") == self.generation
        self.served = set(before["served"]) if same and "served" in before else edge.out()

    # ------------------------------------------------------------------ seeing
    def refresh(self) -> None:
        """Read the servers of the live tree: they change with generations."""
        there = servers(self.edge.upstream())
        with contextlib.suppress(OSError):
            text = (self.edge.live / GENERATION_FILE).read_text()
            found = re.search(r'\$airlift_colour { default "(\w+)"', text)
            self.colour = found[1] if found else self.colour
        board = {}
        for server in there:
            old = self.board.get(server.address)
            board[server.address] = Replica(
                server.name, server.address, server.backup, server.down, now()
            )
            if old:
                old.name, old.backup = server.name, server.backup
                board[server.address] = old
            else:
                board[server.address].taken_out = self._taken_out.get(server.address, 0)
        self.board = board

    async def probe(self, replica: Replica) -> None:
        """Check a replica once and count the result."""
        sent = self.clock()
        asked = asyncio.ensure_future(probe.ask(replica.address))
        try:
            done, _ = await asyncio.wait({asked}, timeout=probe.PATIENCE)
            if not done:
                replica.silent(sent, "no answer")
                self.judge()
                await asyncio.wait({asked}, timeout=probe.LIFETIME - probe.PATIENCE)
            if not asked.done():
                return
            why = asked.result()
            if not why:
                replica.good(self.clock(), now())
            elif done:
                replica.bad(why)
            self.judge()
        finally:
            asked.cancel()

    def groups(self) -> list[list[Replica]]:
        """Return the replicas of the active colour, and those of the standby."""
        there = list(self.board.values())
        return [[one for one in there if one.backup is backup] for backup in (False, True)]

    def judge(self) -> None:
        """Decide for each group, and wake up `acting` if something changed."""
        for group in self.groups():
            for replica in judge(group, now()):
                word = f"out: {replica.why}" if replica.out else "back"
                _log(f"{replica.name} ({replica.address}) is {word}")
                self._taken_out[replica.address] = replica.taken_out
                self.news.set()

    # ------------------------------------------------------------------ acting
    def act(self, out: set[str]) -> None:
        """Apply what was decided to blocks and marks, as far as possible now."""
        text, clock = self.edge.upstream(), self.clock()
        self._note("refusal", self.refusal.keep(blocked(text, out), clock))
        held, generation = downs(text), self.edge.live_generation()
        if generation != self.generation:
            # The command that made this generation has reloaded Nginx, with the marks in it.
            self.generation, self.served = generation, held
        if downs(marked(text, out)) == held == self.served:
            return
        # Waiting would be an outage if no other replica serves.
        if clock < self.reloaded + RELOADS and not any(
            urgent(group, held) for group in self.groups()
        ):
            return
        try:
            # Never during a switch; neither waits for the other.
            with exclusive(self.edge.settings, patience=0):
                if not self.edge.running():
                    return
                self.edge.mark(out)
                self.edge.hup()
                self.served, self.reloaded = self.edge.out(), self.clock()
                self.reloads += 1
        except BusyError:
            return
        except (SwapError, OSError) as error:
            self._note("marks", str(error))
            return
        self._note("marks", "")
        self._note("refusal", self.refusal.keep(blocked(self.edge.upstream(), out), self.clock()))

    def _note(self, about: str, problem: str) -> None:
        """Write a problem to the unit's log once, not every second."""
        if problem and self._said.get(about) != problem:
            _log(problem)
        self._said[about] = problem

    # ------------------------------------------------------------------ telling
    def tell(self) -> None:
        """Write the results for `show` and for Prometheus' node exporter."""
        directory = self.edge.settings.watch_dir
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            put(directory / STATE, json.dumps(self._seen(), indent=1, sort_keys=True) + "\n")
            put(directory / METRICS, "\n".join(self._metrics()) + "\n")
        except OSError as error:
            # The watch continues; an alert reports that the results are old.
            self._note("telling", f"cannot write to {directory}: {error.strerror}")

    def _seen(self) -> dict[str, Any]:
        seen = {
            "checked": now(),
            "clock": self.clock(),
            "reloads": self.reloads,
            "taken_out": self._taken_out,
            "generation": self.generation,
            "served": sorted(self.served),
            "replicas": self._group(backup=False),
            "standby_replicas": self._group(backup=True),
        }
        if self.reloads:
            seen["reloaded"] = self.reloaded
        return seen

    def _colour(self, replica: Replica) -> str:
        return COLOURS[COLOURS.index(self.colour) - 1] if replica.backup else self.colour

    def _group(self, *, backup: bool) -> dict[str, dict[str, str | None]]:
        return {
            one.name: {
                "colour": self._colour(one),
                "state": "out" if one.out else "in",
                "since": one.since,
                "why": one.why if one.out or one.failures else "",
                "last": one.last,
            }
            for one in self.board.values()
            if one.backup is backup
        }

    def _metrics(self) -> Iterable[str]:
        yield "# TYPE airlift_edge_watch_timestamp_seconds gauge"
        yield f"airlift_edge_watch_timestamp_seconds {time.time():.3f}"
        yield "# TYPE airlift_edge_watch_reloads_total counter"
        yield f"airlift_edge_watch_reloads_total {self.reloads}"
        values = (
            ("airlift_replica_in_service", "gauge", lambda one: int(not one.out)),
            ("airlift_replica_failures_in_a_row", "gauge", lambda one: one.failures),
            ("airlift_replica_taken_out_total", "counter", lambda one: one.taken_out),
        )
        for name, kind, value in values:
            yield f"# TYPE {name} {kind}"
            for one in self.board.values():
                labels = f'replica="{one.name}",colour="{self._colour(one)}"'
                yield f"{name}{{{labels}}} {value(one)}"

    # ------------------------------------------------------------------ the daemon
    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def seeing(self) -> None:
        """Check all replicas each second, whether or not earlier checks were answered."""
        while True:
            self.refresh()
            for replica in self.board.values():
                self._start(self.probe(replica))
            self.tell()
            await asyncio.sleep(INTERVAL)

    async def acting(self) -> None:
        """Act on each change, and each second on what could not be done before."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.news.wait(), INTERVAL)
            self.news.clear()
            out = {one.address for one in self.board.values() if one.out}
            # In a thread: the engine may be slow, and the checks of replicas continue.
            await asyncio.get_running_loop().run_in_executor(None, self.act, out)

    async def outdated(self, of: tuple[Path, ...]) -> None:
        """Return when the agent's own files differ from those at the start."""
        first = last = _stamp(of)
        while True:
            await asyncio.sleep(INTERVAL)
            found = _stamp(of)
            # Unchanged since the last look: the copying is complete.
            if found == last != first:
                return
            last = found


async def _daemon(edge: Edge, settings: Path, comparing: Comparing) -> None:
    watch = Watch(edge)
    work = {asyncio.ensure_future(part) for part in (watch.seeing(), watch.acting(), comparing())}
    work.add(asyncio.ensure_future(watch.outdated((Path(__file__).parent, settings))))
    done, others = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    for task in done:
        task.result()
    _log("the agent's files have changed; restarting")


def run(edge: Edge, settings: Path, comparing: Comparing) -> None:
    """Work until the agent's files change; the unit then starts the new ones.

    `comparing` is the work that other edges of the site need.
    """
    asyncio.run(_daemon(edge, settings, comparing))


def shown(directory: Path) -> dict[str, Any]:
    """Return the last results of the watch, for `show`."""
    seen = _read(directory / STATE)
    alive = bool(seen) and 0 <= time.monotonic() - float(seen["clock"]) < STALE
    return {
        "replicas": seen.get("replicas", {}),
        "standby_replicas": seen.get("standby_replicas", {}),
        "watcher": {"alive": alive, "checked": seen.get("checked")},
    }


def _read(path: Path) -> dict[str, Any]:
    """Return the last written results; empty if there are none or they are damaged."""
    try:
        found = parsed(path.read_text())
    except (OSError, ValueError):
        return {}
    whole = all(isinstance(found[name], kinds) for name, kinds in _SHAPE.items() if name in found)
    inner = [*found.get("taken_out", {}).values()] if whole else [None]
    named = found.get("served", []) if whole else []
    if not all(isinstance(one, int) for one in inner):
        return {}
    return found if "clock" in found and all(isinstance(one, str) for one in named) else {}


def _stamp(paths: tuple[Path, ...]) -> list[tuple[str, int, int]]:
    files = [file for path in paths for file in ([path] if path.is_file() else path.glob("*.py"))]
    found = []
    for file in sorted(files):
        with contextlib.suppress(OSError):
            facts = file.stat()
            found.append((str(file), facts.st_mtime_ns, facts.st_size))
    return found


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
