"""Two edges share an address by a real keepalived, with the files and the tables that roles render.

One named part of `make soak`: `make soak-address`. It needs no lab: each edge is a container with
a listener instead of Nginx, and a file says whether `airlift-swap fit` finds it fit.
"""

from __future__ import annotations

import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.builder.images import lockfile, recipes
from tests.unit.roles.conftest import ROOT
from tests.unit.roles.sharedkit import rendered

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

NET = "172.31.78"
SHARED = f"{NET}.100"
ADDRESSES = {"edge-1": f"{NET}.11", "edge-2": f"{NET}.12"}
PACKAGES = "keepalived nftables python3"
#: Seconds to wait for something; how long it takes is not what is tested.
PATIENCE = 60
#: Longer than an edge needs to take the address: three adverts, and three answers of `fit`.
WHILE = 12

LISTENER = """
import http.server, socket, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())

http.server.ThreadingHTTPServer(("0.0.0.0", 443), Answer).serve_forever()
"""
CLIENT = f"""
import urllib.request
print(urllib.request.urlopen("http://{SHARED}:443/", timeout=3).read().decode())
"""


def docker(*words: str, data: str = "", must: bool = True) -> str:
    done = subprocess.run(
        ["docker", *words], input=data, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or not must, f"docker {shlex.join(words)}: {done.stderr}"
    return done.stdout.strip()


class Edges:
    """Both edges, and a client in their segment."""

    def __init__(self, folder: Path, image: str) -> None:
        self.mark = f"airlift-address-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        docker("network", "create", "--internal", "--subnet", f"{NET}.0/24", self.mark)
        rights = [f"--cap-add={one}" for one in ("NET_ADMIN", "NET_RAW", "NET_BROADCAST")]
        machines = {**ADDRESSES, "client": f"{NET}.50"}
        for name, address in machines.items():
            docker(
                *("run", "--detach", "--init", "--name", f"{self.mark}-{name}", "--hostname", name),
                *("--network", self.mark, "--ip", address, *rights, image, "sleep", "infinity"),
            )
        without, with_address = folder / "without", folder / "with"
        without.mkdir()
        with_address.mkdir()
        self.before = rendered(without, ADDRESSES)
        self.files = rendered(with_address, ADDRESSES, site_shared_address=f"{SHARED}/24")
        for name in ADDRESSES:
            self.put(
                name, "/usr/local/sbin/airlift-swap", '#!/bin/sh\n[ "$1" = fit ] && [ -e /fit ]\n'
            )
            self.put(name, "/root/listener.py", LISTENER)
            self.run(
                name,
                "chmod 0755 /usr/local/sbin/airlift-swap; touch /fit; mkdir /run/airlift-address",
            )
            self.run(name, f"python3 /root/listener.py {name} >/dev/null 2>&1 &")
            self.configure(name, self.files[name]["keepalived"])

    def run(self, name: str, script: str, *, must: bool = True, data: str = "") -> str:
        return docker("exec", "-i", f"{self.mark}-{name}", "sh", "-c", script, data=data, must=must)

    def put(self, name: str, path: str, content: str) -> None:
        self.run(name, f"cat > {path}", data=content)

    def configure(self, name: str, content: str) -> None:
        """Let keepalived check a file, then put it where the unit does."""
        place = "/run/airlift-address/keepalived.conf"
        self.put(name, place, content.replace("@interface@", "eth0"))
        self.run(name, f"keepalived --config-test --use-file {place}")

    def firewall(self, name: str, table: str) -> None:
        self.run(name, "nft -f -", data=table)

    def start(self, name: str) -> None:
        """Start keepalived as the unit does."""
        unit = self.files[name]["unit"].replace("\\\n", " ")
        (command,) = [line[10:] for line in unit.splitlines() if line.startswith("ExecStart=")]
        self.run(name, f"{command} >/dev/null 2>&1 &")

    def stop(self, name: str) -> None:
        """End keepalived, and wait until it has: as systemd does before it starts another one."""
        place = "/run/airlift-address/pid"
        self.run(name, f"kill $(cat {place}); while [ -e {place} ]; do sleep 0.1; done")

    def fit(self, name: str, *, well: bool) -> None:
        self.run(name, "touch /fit" if well else "rm /fit")

    def holders(self) -> set[str]:
        """Return the edges that have the address now."""
        show = f"ip -4 -oneline address show to {SHARED}"
        return {name for name in ADDRESSES if self.run(name, show)}

    def answer(self) -> str:
        """Return which edge answers a client at the shared address; empty if none."""
        return self.run("client", "python3 -", data=CLIENT, must=False)

    def remove(self) -> None:
        for name in (*ADDRESSES, "client"):
            docker("rm", "--force", f"{self.mark}-{name}", must=False)
        docker("network", "rm", self.mark, must=False)


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def stays(edges: Edges, wanted: set[str]) -> None:
    """Require that the address stays where it is for as long as a move would take."""
    end = time.monotonic() + WHILE
    while time.monotonic() < end:
        assert edges.holders() == wanted
        time.sleep(0.5)


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edges]:
    base = recipes.base(lockfile.load(ROOT / "bundle/images.lock.yml"), "trixie", print)
    install = f"apt-get update -qq && apt-get install -qq --yes --no-install-recommends {PACKAGES}"
    tag = f"airlift-address-test:{base.rpartition(':')[2]}"
    docker("build", "--quiet", "--tag", tag, "-", data=f"FROM {base}\nRUN {install}\n")
    folder = tmp_path_factory.mktemp("edges")
    made = None
    try:
        made = Edges(folder, tag)
        yield made
    finally:
        if made:
            made.remove()


def test_without_their_flow_both_have_it_and_with_it_one(edges: Edges) -> None:
    """What the firewall would do to them, seen: the table of a site without a shared address."""
    for name in ADDRESSES:
        edges.firewall(name, edges.before[name]["firewall"])
        edges.start(name)
    until(lambda: edges.holders() == set(ADDRESSES), "each edge hears nobody")
    for name in ADDRESSES:
        edges.firewall(name, edges.files[name]["firewall"])
    # Both took it at once, so the order of the inventory decides.
    until(lambda: edges.holders() == {"edge-1"}, "both hear each other")
    until(lambda: edges.answer() == "edge-1", "the client is told where it is")


def test_it_moves_from_an_edge_that_is_not_fit_and_stays_when_that_returns(edges: Edges) -> None:
    edges.fit("edge-1", well=False)
    until(lambda: edges.holders() == {"edge-2"}, "the other edge has it")
    until(lambda: edges.answer() == "edge-2", "the client is told where it is")
    edges.fit("edge-1", well=True)
    stays(edges, {"edge-2"})


def test_it_moves_when_keepalived_ends_and_stays_when_that_returns(edges: Edges) -> None:
    edges.stop("edge-2")
    until(lambda: edges.holders() == {"edge-1"}, "the other edge has it")
    edges.start("edge-2")
    stays(edges, {"edge-1"})


def test_another_configuration_is_loaded_and_it_stays(edges: Edges) -> None:
    for name in ADDRESSES:
        text = edges.files[name]["keepalived"].replace("refresh 30", "refresh 40")
        edges.configure(name, text)
        edges.run(name, "kill -HUP $(cat /run/airlift-address/pid)")
    stays(edges, {"edge-1"})


def test_while_none_is_fit_it_stays_and_a_fit_edge_takes_it(edges: Edges) -> None:
    """What fails on all may be the check, such as the watch, while Nginx serves."""
    for name in ADDRESSES:
        edges.fit(name, well=False)
    stays(edges, {"edge-1"})
    assert edges.answer() == "edge-1"
    edges.fit("edge-2", well=True)
    until(lambda: edges.holders() == {"edge-2"}, "the one that can serve has it")
    edges.fit("edge-1", well=True)
    stays(edges, {"edge-2"})


def test_an_edge_that_starts_without_being_fit_has_it_until_a_fit_one_starts(edges: Edges) -> None:
    edges.fit("edge-1", well=False)
    edges.stop("edge-1")
    edges.stop("edge-2")
    until(lambda: edges.holders() == set(), "no keepalived runs")
    edges.start("edge-1")
    until(lambda: edges.holders() == {"edge-1"}, "there is no other one")
    edges.start("edge-2")
    until(lambda: edges.holders() == {"edge-2"}, "the one that can serve has it")


def test_an_edge_that_was_killed_takes_it_back_off_its_interface(edges: Edges) -> None:
    """systemd starts keepalived again; until then, both have the address."""
    edges.fit("edge-1", well=True)
    # Fit, and heard the other one.
    time.sleep(WHILE)
    edges.run(
        "edge-2", "kill -9 $(cat /run/airlift-address/pid) $(cat /run/airlift-address/vrrp.pid)"
    )
    until(lambda: edges.holders() == set(ADDRESSES), "the kernel keeps an address")
    edges.start("edge-2")
    until(lambda: edges.holders() == {"edge-1"}, "the new keepalived removes it")
    until(lambda: edges.answer() == "edge-1", "the client is told where it is")


def test_the_edge_alone_has_it_and_speaks_to_nobody(edges: Edges, tmp_path: Path) -> None:
    edges.stop("edge-2")
    edges.stop("edge-1")
    until(lambda: edges.holders() == set(), "no keepalived runs")
    alone = rendered(tmp_path, {"edge-1": ADDRESSES["edge-1"]}, site_shared_address=f"{SHARED}/24")[
        "edge-1"
    ]
    edges.firewall("edge-1", alone["firewall"])
    edges.configure("edge-1", alone["keepalived"])
    edges.start("edge-1")
    until(lambda: edges.holders() == {"edge-1"}, "there is nobody to wait for")
    until(lambda: edges.answer() == "edge-1", "the client is told where it is")
