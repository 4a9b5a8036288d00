"""Helpers of the end-to-end tests: probes on the lab's machines, and forged bundles."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from bundle.format import manifest
from bundle.format.tar import Writer
from bundle.trust import sshsig
from scripts.journey import STICK, Journey
from scripts.lab import ROOT, Done, Lab
from scripts.shapes import load

SITE_DEFAULTS: dict[str, Any] = yaml.safe_load((ROOT / "roles/site/defaults/main.yml").read_text())
LAB: dict[str, Any] = yaml.safe_load((ROOT / "molecule/lab/vars.yml").read_text())
SHAPE = load()
ZONES: list[str] = list(SITE_DEFAULTS["site_zones"])
PORTS: dict[str, int] = SITE_DEFAULTS["site_ports"]
HOSTS = SHAPE.hosts
OUTSIDE = "172.30.9.10"
FORGED = f"{STICK}/forged.tar"

#: Runs on a machine: tries TCP connections, all at once; {"host:port": "open" or why not}.
_CONNECT = """
import asyncio, json, sys

async def one(target):
    host, port = target.rsplit(":", 1)
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 3)
        writer.close()
        return target, "open"
    except asyncio.TimeoutError:
        return target, "no answer"
    except OSError as error:
        return target, type(error).__name__

async def main():
    print(json.dumps(dict(await asyncio.gather(*map(one, sys.argv[1:])))))

asyncio.run(main())
"""

#: Runs on a machine: listens on every given port that is free, until its standard input ends.
_LISTEN = """
import socket, sys
kept = []
for port in sys.argv[1:]:
    try:
        kept.append(socket.create_server(("0.0.0.0", int(port))))
    except OSError:
        pass
print("listening", flush=True)
sys.stdin.read()
"""

#: Runs on a machine: records every process's arguments and environment until its input ends.
_WATCH = """
import os, sys, threading, time
seen, known, born, over = set(), set(), {}, threading.Event()
me = str(os.getpid())

def read(path):
    with open(path, "rb") as file:
        return file.read()

def watch():
    turn = 0
    while not over.is_set():
        now, turn = time.monotonic(), turn + 1
        for name in os.listdir("/proc"):
            if not name.isdigit() or name == me:
                continue
            # A young process may soon execute another program; an old one is read less often.
            if now - born.setdefault(name, now) > 3 and turn % 20:
                continue
            try:
                words = read(f"/proc/{name}/cmdline")
                if (name, words) not in known:
                    known.add((name, words))
                    seen.update((words, read(f"/proc/{name}/environ")))
            except OSError:
                born.pop(name, None)
        time.sleep(0.05)

thread = threading.Thread(target=watch)
thread.start()
print("watching", flush=True)
sys.stdin.read()
over.set()
thread.join()
with open(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
    file.write(b"\\n".join(sorted(seen)))
"""
#: Runs on a machine: answers every GET with a few reviews, as a client's own API would; an argument
#: is the seconds that it takes for it.
API = """
import http.server, json, sys, threading, time
delay = float(sys.argv[1]) if sys.argv[1:] else 0

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(delay)
        body = json.dumps([{"text": "splendid"}, {"text": "awful"}]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass

server = http.server.ThreadingHTTPServer(("0.0.0.0", 8088), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""
#: Where the app hosts may reach it, by the lab's inventory.
API_URL = "http://172.30.2.254:8088"
#: Every line that the journey's commands printed.
LOG = ROOT / ".cache" / "reports" / "e2e.log"
WATCHED = "/run/airlift-watched"
#: An argument that every watch must have seen; otherwise its result proves nothing.
MARKER = "marker-3f1c9a"


def address(machine: str) -> str:
    """Return a lab machine's main address, from the lab's own definition."""
    return SHAPE.address(machine)


def zone_of(host: str) -> str:
    """Return the zone of a site's host: the lab's networks are named after the zones."""
    return next(iter(SHAPE.homes[host]))


def connect(
    lab: Lab, machine: str, targets: list[str], *, within: str = 'exec python3 - "$@"'
) -> dict[str, str]:
    """Try TCP connections from a machine; ``within`` is the shell script that runs the program."""
    if not targets:
        return {}
    done = lab.console(machine, within, *targets, stdin=_CONNECT)
    found: dict[str, str] = json.loads(done.output)
    return found


def connect_all(lab: Lab, wanted: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    """Try TCP connections from several machines at the same time."""
    with ThreadPoolExecutor(len(wanted)) as pool:
        answers = pool.map(lambda machine: connect(lab, machine, wanted[machine]), wanted)
        return dict(zip(wanted, answers, strict=True))


def listening(lab: Lab, machine: str, ports: list[int]) -> AbstractContextManager[None]:
    """Listen on every free port of a list on a machine, so that only a filter can close it."""
    return lab.running(machine, _LISTEN, *map(str, ports))


@contextmanager
def watching(lab: Lab, machines: list[str]) -> Iterator[None]:
    """Record processes' arguments and environments in WATCHED on machines, MARKER among them."""
    with ExitStack() as stack:
        for machine in machines:
            stack.enter_context(lab.running(machine, _WATCH, WATCHED))
            lab.console(machine, "sleep 1", MARKER)
        yield


@contextmanager
def no_air_gap(lab: Lab) -> Iterator[None]:
    """Remove the router's rule for a moment: the negative control of each "no way out" test."""
    lab.console("router", "nft flush chain ip lab forward")
    try:
        yield
    finally:
        lab.docker("restart", lab.name("router"))


@contextmanager
def without_lab_rule(lab: Lab) -> Iterator[None]:
    """Remove for a moment the machine's own rule that keeps the lab away from it."""
    rule = ["INPUT", "-i", f"{lab.prefix}-+", "-m", "conntrack", "--ctstate", "NEW,INVALID"]
    rule += ["-m", "comment", "--comment", f"airlift lab {lab.prefix}", "-j", "DROP"]
    iptables = [*([] if os.geteuid() == 0 else ["sudo"]), "iptables", "-w", "10"]
    subprocess.run([*iptables, "-D", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run([*iptables, "-I", *rule], check=True)


def snapshot(journey: Journey) -> str:
    """Return every file below Airlift's home on the jump host, with size and time of change.

    The lock is omitted, because it names its last holder.
    """
    script = "find /opt/airlift ! -type d ! -path '*/store/lock' -printf '%p %s %T@\\n' | sort"
    return journey.lab.console("jump", script).output


def forge(
    journey: Journey, change: dict[str, Any] | None, *, key: Path | None, tail: str = ""
) -> str:
    """Put a forged copy of the bundle beside it on the USB drive; return its path there.

    Its manifest is changed and signed with ``key`` (None: not signed). The members are copied on
    the jump host; ``tail`` is a shell command that then spoils the file ``$1``.
    """
    raw, offset = _original(journey.facts.bundle)
    if change is not None:
        raw = manifest.encode(json.loads(raw) | change)
    head = io.BytesIO()
    writer = Writer(head)
    writer.add(manifest.MANIFEST, raw)
    if key is not None:
        writer.add(manifest.SIGNATURE, sshsig.sign(raw, key))
    script = 'cat > "$1"; tail -c "+$3" "$2" >> "$1"; ' + tail
    stick = f"{STICK}/{journey.facts.bundle.name}"
    journey.lab.send("jump", script, FORGED, stick, str(offset + 1), data=head.getvalue())
    return FORGED


def _original(bundle: Path) -> tuple[bytes, int]:
    """Return a bundle's manifest, and where its first member after the signature begins."""
    with tarfile.open(bundle) as tar:
        first, second = tar.next(), None
        assert first is not None
        assert first.name == manifest.MANIFEST
        raw = tar.extractfile(first)
        assert raw is not None
        data = raw.read()
        while (second := tar.next()) is not None and second.name.startswith(manifest.SIGNATURE):
            pass
        assert second is not None
        return data, second.offset


def last_words(done: Done) -> str:
    """Return what a command printed on both outputs."""
    return f"{done.output}\n{done.error}"


def kill_playbook(journey: Journey) -> None:
    """Kill the playbook that runs on the jump host, with all of its processes."""
    # Anchored, because the shell that started it has its name in its arguments, too.
    program = "^[^ ]*python[^ ]* [^ ]*venv/bin/ansible-playbook"
    journey.lab.console("jump", f"pkill -9 -u operator -f '{program}'")


def kill_at(
    journey: Journey, verb: str, line: str, *, nth: int = 1, options: Sequence[str] = ()
) -> Done:
    """Run a playbook; kill all of its processes soon after it prints a line the nth time."""
    listen, seen = journey.lab.listen, itertools.count(1)

    def watch(text: str) -> None:
        listen(text)
        if text.startswith(line) and next(seen) == nth:
            # Ansible announces a task when the first host has finished it: this kills the next.
            time.sleep(1)
            kill_playbook(journey)

    journey.lab.listen = watch
    try:
        return journey.play(verb, *options, check=False)
    finally:
        journey.lab.listen = listen


def ok(site: Journey, method: str, path: str, body: object = None, status: int = 200) -> Any:
    """Send a request through Nginx, expect a status, return the answer."""
    got, _, answer = site.request(method, path, body)
    assert got == status, answer
    return answer


def metrics_of(site: Journey, host: str, port: str = "app_blue") -> str:
    """Read metrics of an app host as Prometheus does, from the monitor zone."""
    code = (
        "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
    )
    url = f"http://{address(host)}:{PORTS[port]}/metrics"
    return site.lab.python("monitor-1", code, url).output
