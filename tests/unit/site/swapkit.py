"""A host for the swap agent, with a fake engine and a fake Nginx."""

import json
import subprocess
from pathlib import Path
from typing import Any

from swap_agent import lease, runs, swap
from swap_agent.nginx import Edge
from swap_agent.state import Settings, State

FILES = ("nginx.conf", "conf.d/site.conf", "tls/edge.key")


class World:
    """A host whose fake Nginx serves the tree of its last reload."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.running = False
        self.serving: int | None = None
        self.refuses = ""
        self.deaf = False
        self.calls: list[str] = []
        self.workers = {100}
        self.retiring: set[int] = set()
        self.slow = False
        self.settings = Settings(
            root=root / "edge",
            state_file=root / "swap/state.json",
            files=FILES,
            container="airlift-edge",
            image="sha256:nginx",
            user="101:101",
            probe_address="127.0.0.1",
            probe_port=1,
            reload_timeout=0.0,
            drain_timeout=0.0,
            agent_timeout=0.0,
            watch_dir=root / "run",
        )
        self.edge = Edge(self.settings)
        for name in (
            *FILES,
            "upstreams/blue.conf",
            "upstreams/green.conf",
            "upstreams/green-blue.conf",
            "upstreams/blue-green.conf",
        ):
            path = self.edge.desired / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# {name}\n")
        (self.edge.desired / "tls/edge.key").chmod(0o400)

    def engine(self, *arguments: str, **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(arguments[0])
        said, code, errors = "", 0, ""
        if arguments[0] == "run" and self.refuses:
            code, errors = 1, self.refuses
        if arguments[0] == "inspect":
            said = f"{'true' if self.running else 'false'} sha256:running"
        if arguments[0] == "top":
            lines = [f"{pid} nginx: worker process" for pid in self.workers]
            lines += [f"{pid} nginx: worker process is shutting down" for pid in self.retiring]
            said = "\n".join(["PID COMMAND", "99 nginx: master process nginx", *lines])
        return subprocess.CompletedProcess(arguments, code, said, errors)

    def hup(self) -> None:
        self.calls.append("hup")
        if not self.deaf:
            self.serving = self.edge.live_generation()
            self.retiring = self.workers if self.slow else set()
            self.workers = {max(self.workers) + 1}

    def start(self) -> None:
        self.running, self.serving = True, self.edge.live_generation()

    def apply(self, release: str = "1.0.0", serial: int = 1) -> dict[str, Any]:
        return swap.apply(self.edge, release, serial)

    def held(self) -> State:
        found = State.load(self.settings.state_file)
        assert found is not None
        return found

    def lock(self, run: str = "run-1", seconds: float = 60) -> lease.Lease:
        return lease.acquire(
            swap.lease_file(self.edge), run=run, owner="ann", verb="upgrade", seconds=seconds
        )

    def switch(
        self, to: str = "green", release: str = "1.1.0", serial: int = 2, run: str = "run-1"
    ) -> dict[str, Any]:
        return swap.switch(self.edge, run=run, to=to, release=release, serial=serial, warm=60)

    def begin(
        self,
        run: str = "run-1",
        verb: str = "upgrade",
        instead_of: str = "",
        release: str = "",
        **more: str,
    ) -> None:
        data = {"release": release, **more} if release else more
        runs.begin(
            self.edge,
            run=run,
            owner="ann",
            verb=verb,
            seconds=60,
            instead_of=instead_of,
            data=data,
        )

    def step(self, name: str, run: str = "run-1") -> None:
        runs.step(self.edge, run=run, name=name)

    def end(self, why: str = "", run: str = "run-1") -> None:
        runs.end(self.edge, run=run, why=why, data={})

    def events(self) -> list[tuple[str, str]]:
        return [(r["step"], r["event"]) for r in swap.journal_of(self.edge).records()]

    def want(self, text: str) -> None:
        (self.edge.desired / "nginx.conf").write_text(text)

    def state(self) -> dict[str, Any]:
        held: dict[str, Any] = json.loads(self.settings.state_file.read_text())
        return held
