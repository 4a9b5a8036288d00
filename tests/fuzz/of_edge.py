"""Fuzz rows for the edge and its agent: records, upstream files, answers of replicas and agents."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from types import SimpleNamespace
from typing import Any

from swap_agent import drained, edges, follow, lease, nginx, probe, replicas, runs, swap, watch
from swap_agent.state import COLOURS, State, SwapError

from tests.fuzz.mutate import SEAM, Files, Json, Lines
from tests.fuzz.parser import Case, Kit, fuzzed
from tests.unit.roles.conftest import plugin
from tests.unit.site.swapkit import World

AGENT = "roles/swap_agent/files/swap_agent"


def _world(kit: Kit) -> World:
    """Return an edge with an upgrade in progress and a fake engine."""
    world = World(kit.folder)
    kit.patch.setattr(nginx, "engine", world.engine)
    kit.patch.setattr(swap, "engine", world.engine)
    kit.patch.setattr(nginx, "started", lambda _: "1")
    kit.patch.setattr(nginx.Edge, "hup", lambda _: world.hup())
    kit.patch.setattr(nginx.Edge, "answered", lambda _: world.serving)
    world.apply()
    world.start()
    world.begin(release="1.1.0")
    world.step("images")
    world.switch()
    return world


@fuzzed(
    "records of the edge",
    "swap_agent.swap.show, runs.begin, swap.undo, runs.end",
    *(f"{AGENT}/{name}.py" for name in ("state", "lease", "journal", "watch", "swap", "runs")),
    f"{AGENT}/drained.py",
    form=Files((Json(), Json(), Json(), Lines(inner=Json()), Json(), Json())),
    refusals=(SwapError,),
    slow=True,
)
def of_records(kit: Kit) -> Case:
    """The agent answers, or names the damaged file, whatever its files contain."""
    # Skip fsync: nothing here has to survive a power cut.
    kit.patch.setattr(os, "fsync", lambda _: None)
    world = _world(kit)
    folder = world.settings.state_file.parent
    seen = watch.Watch(world.edge)
    world.settings.watch_dir.mkdir(parents=True, exist_ok=True)
    seen.tell()
    drained.save(world.settings, {"app-2": {"by": "ann@jump", "since": "2026-01-01T00:00:00Z"}})
    places = [
        world.settings.state_file,
        folder / "lease.json",
        folder / "lease.pulse",
        folder / "journal",
        world.settings.watch_dir / watch.STATE,
        drained.file_of(world.settings),
    ]
    seed = SEAM.join(place.read_bytes() for place in places)

    def check(data: bytes) -> None:
        for place, raw in zip(places, data.split(SEAM), strict=False):
            place.write_bytes(raw)
        said: SwapError | None = None
        for act in (
            lambda: swap.show(world.edge),
            lambda: world.begin(release="1.1.0"),
            lambda: swap.undo(world.edge, run="run-1"),
            lambda: runs.beat(world.edge, run="run-1", seconds=60),
            lambda: world.end("it failed"),
        ):
            try:
                json.dumps(act())
            except SwapError as error:
                said = error
        watch.Watch(world.edge).tell()
        if said is not None:
            assert str(said)
            raise said

    return Case([seed], check)


@fuzzed(
    "lease",
    "swap_agent.lease.held",
    f"{AGENT}/lease.py",
    form=Files((Json(), Json())),
    refusals=(SwapError,),
)
def of_lease(kit: Kit) -> Case:
    """A lease that is read can be shown, compared and given back."""
    path = kit.folder / "lease.json"
    lease.acquire(path, run="run-1", owner="ann", verb="upgrade", seconds=60)
    pulse = path.with_suffix(".pulse")
    seed = SEAM.join((path.read_bytes(), pulse.read_bytes()))

    def check(data: bytes) -> None:
        first, _, second = data.partition(SEAM)
        path.write_bytes(first)
        pulse.write_bytes(second)
        found = lease.held(path)
        if found is not None:
            assert found.given_back() in (True, False)
            assert found.run in str(lease.HeldError(found))

    return Case([seed], check)


@fuzzed(
    "offer of another edge",
    "swap_agent.edges.read, follow.record_of, edges.judge",
    *(f"{AGENT}/{name}.py" for name in ("edges", "follow")),
    form=Json(words=(b'"state"', b'"drained"', b'"generation"', b'"blue"', b'"run"')),
    refusals=(ValueError,),
)
def of_offer(kit: Kit) -> Case:
    """An accepted offer has valid colours and can be compared and adopted."""
    state = State("blue", "green", "1.1.0", 2, 7, "2026-01-01T00:00:00Z", "1.0.0", 1)
    out = {"app-2": {"by": "ann@jump", "since": "2026-01-01T00:00:00Z"}}
    mine = edges.Offer("edge-1", state, out, "hash", run=False)

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        with contextlib.suppress(SwapError):
            assert follow.record_of(text)[0].active in COLOURS
        found = edges.read(text)
        assert {found.state.active, found.state.standby} <= {*COLOURS, None}
        for lead in ("edge-1", "edge-2"):
            for joined in (True, False):
                said = edges.judge(mine, [found], lead, joined=joined)
                assert said.adopt is None or said.adopt.state.generation > 7

    return Case([json.dumps(dataclasses.asdict(mine)).encode()], check)


UPSTREAM = b"""# Requests go to blue and, only when no blue answers, to green.
upstream app {
    zone app 256k;
    server 192.0.2.11:8001 max_fails=20 fail_timeout=2s; # app-1
    server 192.0.2.12:8001 max_fails=20 fail_timeout=2s down; # app-2
    server 192.0.2.11:8002 max_fails=20 fail_timeout=2s backup; # app-1
    keepalive 32;
}

# What the preview listener shows: the colour that does not serve.
upstream preview {
    zone preview 64k;
    server 192.0.2.11:8002; # app-1
}
"""


@fuzzed(
    "upstream file",
    "swap_agent.replicas.marked",
    *(f"{AGENT}/replicas.py", f"{AGENT}/refusal.py"),
    form=Lines([b"server", b"down;", b"backup", b"# x", b"}", b"upstream app {", b";"]),
    refusals=(),
)
def of_upstream(kit: Kit) -> Case:
    """Marking changes only the mark, and marking twice equals marking once."""

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        there = [one.address for one in replicas.servers(text)]
        for out in ({"192.0.2.11:8001"}, set(there[:1]), set(there), set[str]()):
            after = replicas.marked(text, out)
            assert replicas.marked(after, out) == after
            assert [one.address for one in replicas.servers(after)] == there
            assert replicas.downs(after) <= out
            assert replicas.marked(after, ()) == replicas.marked(text, ())
            for backup in (False, True):
                group = [one for one in replicas.servers(after) if one.backup is backup]
                assert not group or not all(one.down for one in group)
            assert replicas.blocked(text, out) <= out

    return Case([UPSTREAM], check)


READY = {
    "status": "not ready",
    "release": "1.1.0",
    "colour": "green",
    "checks": {"postgres": "ok", "redis": "connection refused"},
}
ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
    b"content-length: 120\r\n\r\n" + json.dumps(READY).encode()
)


class _Writer:
    """A connection's writer that discards the request."""

    def write(self, data: bytes) -> None:
        """Discard the data."""

    def close(self) -> None:
        """Do nothing."""


@fuzzed(
    "answer to the probe",
    "swap_agent.probe.ask",
    f"{AGENT}/probe.py",
    form=Lines([b"HTTP/1.1", b"200", b"503", b"x" * 70_000], inner=Json(), end=b"\r\n"),
    refusals=(),
)
def of_probe(kit: Kit) -> Case:
    """Any answer means ready, or gives a reason in at most 200 printable characters."""
    current = [b""]

    async def connect(*_: object) -> tuple[asyncio.StreamReader, _Writer]:
        reader = asyncio.StreamReader()
        reader.feed_data(current[0])
        reader.feed_eof()
        return reader, _Writer()

    kit.patch.setattr(asyncio, "open_connection", connect)
    loop = kit.loop()

    def check(data: bytes) -> None:
        current[0] = data
        why = loop.run_until_complete(probe.ask("192.0.2.11:8001"))
        assert len(why) <= 200
        assert why.isprintable(), why
        if why == "":
            assert data.split()[1] == b"200"

    return Case([ANSWER, b"HTTP/1.1 200 OK\r\n\r\n"], check)


@fuzzed(
    "answers of the agent",
    "the action plugin swap_agent, swap_agent_setup.call",
    "roles/swap_agent/action_plugins/swap_agent.py",
    "roles/swap_agent/library/swap_agent_setup.py",
    form=Json(words=(b'"holder"', b'"run"', b'"last_lease"', b'"unfinished"', b'"seq"')),
    refusals=(),
)
def of_agent(kit: Kit) -> Case:
    """Any answer of the agent gives the task a result or an error message."""
    module = plugin("swap_agent/action_plugins/swap_agent.py")
    setup = plugin("swap_agent/library/swap_agent_setup.py")
    world = _world(kit)
    shown = json.dumps(swap.show(world.edge)).encode()
    held = json.dumps({"holder": {"run": "a.b.c.1.2", "owner": "ann"}}).encode()
    current = [b""]

    class Task:
        check_mode = False
        args: dict[str, Any] = {}  # noqa: RUF012

    action = module.ActionModule.__new__(module.ActionModule)
    action._task = Task()
    codes = [0]
    action._execute_module = lambda **_: {
        "rc": codes[0],
        "stdout": current[0].decode("utf-8", "replace"),
        "stderr": "airlift-swap: no",
    }
    kit.patch.setattr(module.ActionBase, "run", lambda *_, **__: {})

    def check(data: bytes) -> None:
        current[0] = data
        for command, code in (("show", 0), ("step", module.HELD), ("journal", 0), ("step", 1)):
            codes[0] = code
            Task.args = {"command": command, "options": {}}
            found = action.run(None, {})
            assert isinstance(found, dict)
            if command == "step":
                assert found.get("failed") is True
                assert found["msg"]
        said = data.decode("utf-8", "replace")
        host = SimpleNamespace(run_command=lambda _: (0, said, ""))
        with contextlib.suppress(setup.RefusedError):
            assert setup.call(host, [])["changed"] in (True, False)

    return Case([shown, held, b'{"changed": false}'], check)
