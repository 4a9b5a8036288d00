"""Whether this edge may take traffic: `airlift-swap fit`, for a check every few seconds.

It has to be cheap. So it imports little, never calls the engine, and asks nobody but Nginx on this
host: what the other edges serve was read by the watch, and its last results are in files.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from typing import Any

SETTINGS = "/etc/airlift/swap.json"
#: Seconds for Nginx's answer.
PATIENCE = 1.0
#: Seconds after which results of the watch are too old, and those about the other edges.
STALE = 10.0
STALE_EDGES = 15.0


def _read(path: str) -> dict[str, Any]:
    """Return the object in a file; empty when there is none."""
    try:
        with open(path, encoding="utf-8") as handle:  # noqa: PTH123 - pathlib costs milliseconds
            found = json.load(handle)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _age(found: dict[str, Any]) -> float:
    """Return the seconds since results were written, by a clock that no reboot survives."""
    clock = found.get("clock")
    age = time.monotonic() - clock if isinstance(clock, (int, float)) else -1.0
    return age if age >= 0 else float("inf")


def answered(address: str, port: int) -> str:
    """Return the generation that Nginx answers on a new connection; empty without an answer."""
    deadline = time.monotonic() + PATIENCE
    said = b""
    try:
        with socket.create_connection((address, port), PATIENCE) as connection:
            connection.sendall(b"GET /_swap/gen HTTP/1.0\r\nConnection: close\r\n\r\n")
            while len(said) < 4096:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                more = connection.recv(4096)
                if not more:
                    break
                said += more
    except OSError:
        return ""
    head, _, body = said.partition(b"\r\n\r\n")
    return body.decode("ascii", "replace").strip() if b" 200 " in head.split(b"\r\n")[0] else ""


def live(root: str) -> str:
    """Return the generation of the live tree; empty when there is none."""
    try:
        name = os.path.basename(os.readlink(os.path.join(root, "live")))  # noqa: PTH115 PTH118 PTH119
    except OSError:
        return ""
    return str(int(name)) if name.isdigit() else ""


def working(state_file: str) -> bool:
    """Return whether an agent changes this edge right now: its tree may be ahead of Nginx."""
    try:
        with open(os.path.join(os.path.dirname(state_file), "agent.lock")) as lock:  # noqa: PTH118 PTH120 PTH123
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def unfit(path: str = SETTINGS) -> str:
    """Return why this edge may take no traffic; empty when it may."""
    settings = _read(path)
    if not {"root", "state_file", "probe_address", "probe_port"} <= set(settings):
        return f"the agent's settings {path} cannot be read; run install.yml"
    if not _read(settings["state_file"]):
        return "nothing is installed here yet; run install.yml"
    wanted, said = (
        live(settings["root"]),
        answered(settings["probe_address"], settings["probe_port"]),
    )
    if not said:
        return "Nginx does not answer; see: docker logs --tail 20 airlift-edge"
    if said != wanted and not working(settings["state_file"]):
        return f"Nginx answers generation {said}, the live tree is {wanted or 'missing'}"
    folder = settings.get("watch_dir", "/run/airlift")
    if _age(_read(f"{folder}/replicas.json")) >= STALE:
        return "the watch over the replicas does not run; see: systemctl status airlift-edge"
    if settings.get("edges"):
        seen = _read(f"{folder}/edges.json")
        if _age(seen) >= STALE_EDGES:
            return "the watch has not compared this edge with the others since it began"
        return str(seen.get("unfit", ""))
    return ""


def main(words: list[str], path: str = SETTINGS) -> int:
    """Print one sentence, or an object with `--json`; return the exit code."""
    why = unfit(path)
    if "--json" in words:
        print(json.dumps({"changed": False, "fit": not why, "why": why}, sort_keys=True))
    elif why:
        print(f"airlift-swap: not fit: {why}", file=sys.stderr)
    else:
        print("fit: this edge may take traffic")
    return 1 if why else 0
