"""The watch with the product's own Nginx, and with the kernel's packet filter."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from swap_agent import drain, lease, swap, watch
from swap_agent.nginx import Edge
from swap_agent.refusal import TABLE, Refusal, ruleset
from swap_agent.state import Settings, State, SwapError
from swap_agent.watch import Watch

from bundle.builder.images import engine
from tests.unit.app.appkit import free_port, image_of
from tests.unit.roles.conftest import ROOT

#: A replica in its own process, so that it can be frozen: it prints its port, then serves.
REPLICA = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(float(self.headers.get("X-Slow", "0")))
        body = str(self.server.server_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
NGINX = """
pid /tmp/pid; daemon off; error_log /dev/stderr warn; worker_shutdown_timeout {ends}s;
worker_processes 2;
events {{}}
http {{
  include generation.conf;
  include upstream.conf;
  client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;
  uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; access_log off;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_next_upstream error timeout; proxy_read_timeout {read}s;
    }}
    location = /_swap/gen {{ return 200 "$airlift_generation\\n"; }}
  }}
}}
"""


@contextlib.contextmanager
def replica(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", REPLICA, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def ask(port: int, method: str, slow: float = 0) -> str:
    """Send one request on a new connection; return the replica's port, or the error."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        body = b"x" if method == "POST" else None
        connection.request(method, "/", body=body, headers={"X-Slow": str(slow)})
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else f"HTTP {answer.status}"
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def both(port: int, count: int = 40) -> set[str]:
    """Return who answers many requests of both kinds."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return set(pool.map(lambda verb: ask(port, verb), ["GET", "POST"] * (count // 2)))


@contextlib.contextmanager
def nginx(
    tmp_path: Path, ports: Sequence[str], *, read: int = 2, ends: int = 5
) -> Iterator[tuple[Edge, int]]:
    """Run the product's Nginx in front of these replicas, each on a host of its own."""
    port = free_port()
    name = f"watch-test-{uuid.uuid4().hex[:8]}"
    user = f"{os.getuid()}:{os.getgid()}"
    settings = Settings(
        root=tmp_path / "edge",
        state_file=tmp_path / "swap/state.json",
        files=("nginx.conf",),
        container=name,
        image=image_of("nginx"),
        user=user,
        probe_address="127.0.0.1",
        probe_port=port,
        watch_dir=tmp_path / "run",
    )
    edge = Edge(settings)
    (edge.desired / "upstreams").mkdir(parents=True)
    # Nginx's own check may not give its folders to another user.
    own = "user root root;" if os.getuid() == 0 else ""
    (edge.desired / "nginx.conf").write_text(own + NGINX.format(port=port, read=read, ends=ends))
    lines = "".join(f"    server 127.0.0.1:{p}; # app-{p}\n" for p in ports)
    block = f"upstream app {{\n    zone app 64k;\n{lines}    keepalive 8;\n}}\n"
    (edge.desired / "upstreams/blue.conf").write_text(block)
    state = State("blue", None, "1.0.0", 1, 1, "now")
    tree = edge.stage(1, state)
    edge.point(tree.rename(tree.with_name("000001")))
    state.save(settings.state_file)
    script = ["run", "--detach", "--rm", "--name", name, "--network", "host", "--user", user]
    script += ["--volume", f"{settings.root}:/etc/nginx:ro", "--tmpfs", "/tmp:mode=1777"]  # noqa: S108
    script += ["--entrypoint", "nginx", settings.image, "-c", "/etc/nginx/live/nginx.conf"]
    engine.run(script, what="docker run")
    try:
        yield edge, port
    finally:
        engine.run(["rm", "--force", name], what="docker rm")


@pytest.mark.docker
@pytest.mark.slow
def test_requests_leave_a_frozen_replica_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RELOADS", 3.0)
    with (
        replica() as (frozen, sick),
        replica() as (_, well),
        nginx(tmp_path, (sick, well)) as (edge, port),
    ):
        made, stop = Watch(edge), asyncio.Event()
        # Do not touch the packet filter of this machine.
        monkeypatch.setattr(made.refusal, "keep", lambda *_: "")
        loop = asyncio.new_event_loop()

        async def daemon() -> None:
            tasks = [asyncio.ensure_future(part) for part in (made.seeing(), made.acting())]
            await stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        thread = threading.Thread(target=lambda: loop.run_until_complete(daemon()))
        try:
            wait_for(lambda: both(port, 2) <= {sick, well} and both(port) == {sick, well})
            thread.start()
            workers = edge.workers()
            frozen.send_signal(signal.SIGSTOP)
            wait_for(lambda: made.reloads == 1 and not workers & edge.workers())
            assert edge.out() == {f"127.0.0.1:{sick}"}
            # No request fails, writing ones included, because none is sent to it any more.
            assert both(port, 200) == {well}
            assert edge.answered() == 1
            frozen.send_signal(signal.SIGCONT)
            wait_for(lambda: made.reloads == 2)
            wait_for(lambda: both(port) == {sick, well})
        finally:
            if thread.ident:
                loop.call_soon_threadsafe(stop.set)
                thread.join()
            loop.close()


@pytest.mark.docker
@pytest.mark.slow
def test_a_drained_host_ends_its_requests_and_comes_back(tmp_path: Path) -> None:
    with (
        replica() as (going, out),
        replica() as (_, well),
        nginx(tmp_path, (out, well), read=30, ends=30) as (edge, port),
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        lease.acquire(swap.lease_file(edge), run="r", owner="ann", verb="drain", seconds=600)
        wait_for(lambda: both(port, 2) <= {out, well} and both(port) == {out, well})
        # Requests are in progress on both replicas, writing ones included, when the command begins.
        slow = [pool.submit(ask, port, verb, 8) for verb in ("GET", "POST") * 4]
        time.sleep(0.5)
        said = drain.drain(edge, run="r", hosts=[f"app-{out}"], look=False, gone=False)
        # The command has returned, so the host may be switched off.
        ended = [one.done() for one in slow]
        going.kill()
        assert all(ended)
        assert {one.result() for one in slow} == {out, well}
        assert said["generation"] == edge.answered() == 2
        assert both(port, 200) == {well}
        with pytest.raises(SwapError, match="would leave no app host"):
            drain.drain(edge, run="r", hosts=[f"app-{well}"], look=False, gone=False)
        with pytest.raises(SwapError, match="stays drained"):
            drain.bring_back(edge, run="r", host=f"app-{out}")
        assert both(port, 20) == {well}
        with replica(int(out)):
            drain.bring_back(edge, run="r", host=f"app-{out}")
            assert both(port) == {out, well}
            assert edge.answered() == 3


def wait_for(check: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.2)


#: The edge is in one network namespace, and its container in a second one.
TWO_HOSTS = r"""
import os, socket, subprocess, sys, threading, time
sys.path.insert(0, sys.argv[1])
from swap_agent.refusal import Refusal, TABLE

def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

inner = subprocess.Popen(["unshare", "--net", "sleep", "60"])
here = os.readlink("/proc/self/ns/net")
while os.readlink(f"/proc/{inner.pid}/ns/net") == here:
    time.sleep(0.01)
inside = ["nsenter", "--target", str(inner.pid), "--net"]
run("ip", "link", "set", "lo", "up")
run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "in0", "netns", str(inner.pid))
run("ip", "addr", "add", "10.9.8.1/24", "dev", "out0")
run("ip", "link", "set", "out0", "up")
run(*inside, "ip", "addr", "add", "10.9.8.2/24", "dev", "in0")
run(*inside, "ip", "link", "set", "in0", "up")
servers = [socket.create_server(("10.9.8.1", port)) for port in (8001, 8002)]

CONNECT = '''
import socket, sys
try:
    socket.create_connection(("10.9.8.1", int(sys.argv[1])), timeout=5)
    print("open")
except OSError as error:
    print(type(error).__name__)
'''

def from_container(port):
    return run(*inside, sys.executable, "-c", CONNECT, str(port)).strip()

def from_host(port):
    return run(sys.executable, "-c", CONNECT, str(port)).strip()

try:
    # As on every host: something looks at the state of connections from the start.
    run("nft", "table inet host { chain input { "
        "type filter hook input priority filter; ct state established accept; }; }")
    refusal, told = Refusal(), []
    # What is open already stays open.
    keeper = subprocess.Popen([*inside, sys.executable, "-c", '''
import socket, sys
one = socket.create_connection(("10.9.8.1", 8001), timeout=5)
print(flush=True)
sys.stdin.readline()
one.sendall(b"still there")
'''], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    keeper.stdout.readline()
    kept, _ = servers[0].accept()
    told.append([from_container(8001), from_container(8002)])
    said = refusal.keep({"10.9.8.1:8001", "name.example:8001"}, 0.0)
    assert said == "", said
    told.append([from_container(8001), from_container(8002), from_host(8001)])
    keeper.stdin.write(b"\n")
    keeper.stdin.close()
    kept.settimeout(10)
    told.append(kept.recv(99).decode())
    # Renewed, although somebody flushed it; and it expires by itself.
    run("nft", "flush", "ruleset")
    assert refusal.keep({"10.9.8.1:8001"}, 1.0) == ""
    told.append(from_container(8001))
    assert refusal.keep({"10.9.8.1:8001"}, 6.0) == ""
    told.append(from_container(8001))
    assert "expires" in run("nft", "list", "table", "inet", TABLE)
    assert refusal.keep(set(), 7.0) == ""
    told.append(from_container(8001))
    told.append(TABLE in run("nft", "list", "tables"))
    print(told)
finally:
    inner.kill()
"""


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("nft") or not shutil.which("unshare"),
    reason="needs root and nft",
)
def test_new_connections_from_containers_are_refused_and_no_others() -> None:
    command = ["unshare", "--net", sys.executable, "-c", TWO_HOSTS]
    done = subprocess.run(
        [*command, str(ROOT / "roles/swap_agent/files")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refused = "ConnectionRefusedError"
    assert eval(done.stdout) == [  # noqa: S307 - of the program above
        ["open", "open"],
        [refused, "open", "open"],
        "still there",
        "open",
        refused,
        "open",
        False,
    ]


def test_without_nft_the_marks_have_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = Refusal().keep({"10.0.2.2:8001"}, 0.0)
    assert "only the marks apply" in said
    (tmp_path / "nft").write_text("#!/bin/sh\necho no such kernel >&2; exit 1\n")
    (tmp_path / "nft").chmod(0o755)
    assert "nft: no such kernel" in Refusal().keep({"10.0.2.2:8001"}, 0.0)


def test_the_table_is_its_own() -> None:
    defaults = (ROOT / "roles/firewall/vars/main.yml").read_text()
    assert f"firewall_table: {TABLE}" not in defaults
    assert ruleset(()) == f"table inet {TABLE}\ndelete table inet {TABLE}\n"
