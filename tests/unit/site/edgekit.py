"""Two edges of a site on one machine: real agents, each with the product's own Nginx."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from swap_agent import drained, edges, lease, swap
from swap_agent.follow import Follower
from swap_agent.nginx import Edge
from swap_agent.state import Settings, State

from bundle.builder.images import engine
from tests.unit.app.appkit import free_port, image_of

NGINX = """
pid /tmp/pid; daemon off; error_log /dev/stderr warn; worker_processes 1;
events {{}}
http {{
  include generation.conf;
  include upstream.conf;
  client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;
  uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; access_log off;
  include conf.d/status.conf;
  server {{ listen 127.0.0.1:{port}; {own} location / {{ proxy_pass http://app; }} }}
}}
"""
STATUS = """
map "" $none {{ default ""; }}
# {text}
"""
OWN = """
location = /_swap/gen { return 200 "$airlift_generation\\n"; }
location = /_swap/edge {
  allow 127.0.0.1; deny all; default_type application/json; alias /etc/nginx/offer/edge.json;
}
"""


class One:
    """An edge with its agent; `text` is a line of its configuration."""

    def __init__(self, root: Path, name: str, ports: dict[str, int]) -> None:
        self.name = name
        others = {one: f"127.0.0.1:{port}" for one, port in ports.items() if one != name}
        self.settings = Settings(
            root=root / name / "edge",
            state_file=root / name / "swap/state.json",
            files=("nginx.conf", "conf.d/status.conf"),
            container=f"edges-test-{uuid.uuid4().hex[:8]}",
            image=image_of("nginx"),
            user=f"{os.getuid()}:{os.getgid()}",
            probe_address="127.0.0.1",
            probe_port=ports[name],
            watch_dir=root / name / "run",
            name=name,
            lead="edge-1",
            edges=others,
        )
        self.edge = Edge(self.settings)
        self.follower = Follower(self.edge)
        self.want("first")
        for colours in (("blue",), ("green",), ("blue", "green"), ("green", "blue")):
            lines = "".join(
                f"    server 127.0.0.1:{8 + place}{' backup' if place else ''}; # app-{host}\n"
                for place, _ in enumerate(colours)
                for host in (1, 2)
            )
            path = self.edge.desired / f"upstreams/{'-'.join(colours)}.conf"
            path.write_text(f"# {colours[0]}\nupstream app {{\n{lines}}}\n")

    def want(self, text: str) -> None:
        """Write a wanted configuration, as Ansible does."""
        for name in ("conf.d", "upstreams"):
            (self.edge.desired / name).mkdir(parents=True, exist_ok=True)
        own = "user root root;" if os.getuid() == 0 else ""
        body = NGINX.format(port=self.settings.probe_port, own=OWN)
        (self.edge.desired / "nginx.conf").write_text(own + body)
        (self.edge.desired / "conf.d/status.conf").write_text(STATUS.format(text=text))

    def spoil(self) -> None:
        """Write a wanted configuration that Nginx refuses."""
        (self.edge.desired / "conf.d/status.conf").write_text("nonsense;\n")

    def start(self) -> None:
        """Start Nginx with the live tree."""
        words = ["run", "--detach", "--rm", "--name", self.settings.container, "--network", "host"]
        words += ["--user", self.settings.user, "--tmpfs", "/tmp:mode=1777"]  # noqa: S108
        words += ["--volume", f"{self.settings.root}:/etc/nginx:ro", "--entrypoint", "nginx"]
        words += [self.settings.image, "-c", "/etc/nginx/live/nginx.conf"]
        engine.run(words, what="docker run")
        assert self.edge.serves(self.edge.live_generation(), 1)

    def stop(self) -> None:
        """Remove Nginx."""
        engine.run(["rm", "--force", self.settings.container], what="docker rm")

    def state(self) -> State:
        """Return the recorded state."""
        found = State.load(self.settings.state_file)
        assert found is not None
        return found

    def out(self) -> set[str]:
        """Return the drained hosts that its Nginx omits."""
        return {"app-1", "app-2"} - set(drained.names(self.edge.upstream()))

    def lock(self) -> None:
        """Lock the edge for a run."""
        path = swap.lease_file(self.edge)
        lease.acquire(path, run="run-1", owner="ann", verb="upgrade", seconds=600)

    def end(self) -> None:
        """End the run."""
        lease.release(swap.lease_file(self.edge), "run-1")
        edges.write(self.edge)

    def compare(self) -> str:
        """Let the watch compare once; return the reason why the edge is unfit."""
        self.follower.compare()
        return str(edges.shown(self.settings)["unfit"])


@contextlib.contextmanager
def two(root: Path) -> Iterator[tuple[One, One]]:
    """Provide a site with two edges that serve blue under generation 1."""
    ports = {"edge-1": free_port(), "edge-2": free_port()}
    lead, peer = One(root, "edge-1", ports), One(root, "edge-2", ports)
    try:
        for one in (lead, peer):
            swap.apply(one.edge, "1.0.0", 1)
            one.start()
        (peer.settings.state_file).write_text(lead.settings.state_file.read_text())
        for one in (lead, peer, lead, peer):
            one.compare()
        yield lead, peer
    finally:
        lead.stop()
        peer.stop()
