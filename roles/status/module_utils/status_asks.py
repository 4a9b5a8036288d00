"""Network checks of services, from where they are used."""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils import http_probe
from ansible.module_utils.http_probe import Answer

WORDS = 160
#: Down targets that are checked again; if more are down, there is a common cause.
TARGETS = 32
LABELS = ("job", "host", "instance", "colour")
Ask = dict[str, Any]


def get(ask: Ask) -> Answer:
    """Return the answer; without one it says why."""
    authority = str(ask.get("ca") or "")
    if ask["url"].startswith("https:") and authority and not Path(authority).is_file():
        return Answer(0, b"", f"{authority} is not on this host")
    found = http_probe.ask(ask["url"], ca=authority, verify=ask.get("verify", True))
    return Answer(found.status, found.body, found.error[:WORDS])


def ready(ask: Ask) -> dict[str, Any]:
    """Return the readiness answer of a service; `error` is the reason when there is none."""
    answer = get(ask)
    said = answer.readiness()
    return {
        "status": answer.status,
        "ready": str(said.get("status", "")),
        "checks": {str(k): str(v)[:WORDS] for k, v in said.get("checks", {}).items()},
        "release": str(said.get("release", "")),
        "colour": str(said.get("colour", "")),
        "error": answer.error,
    }


def gauge(ask: Ask) -> dict[str, Any]:
    """Return the value of the metric that shows whether an exporter's own login works."""
    status, body, error = get(ask)
    if status != 200:
        return {"value": None, "error": error or f"HTTP {status}"}
    name, text = re.escape(str(ask["gauge"])), body.decode(errors="replace")
    found = re.search(rf"^{name}(?:\{{[^}}]*\}})? ([-+.e0-9]+)$", text, re.MULTILINE)
    try:
        return {"value": float(found.group(1) if found else ""), "error": ""}
    except ValueError:
        return {"value": None, "error": f"it shows no {ask['gauge']}"}


def targets(ask: Ask) -> dict[str, Any]:
    """Return the targets that Prometheus reports as down."""
    answer = get(ask)
    try:
        active = answer.content()["data"]["activeTargets"]
        down = [one for one in active if one["health"] == "down"][:TARGETS]
        rows = [
            {
                **{name: str(one["labels"].get(name, "")) for name in LABELS},
                "url": str(one["scrapeUrl"]),
                "error": str(one.get("lastError", "")),
            }
            for one in down
        ]
    except (KeyError, TypeError, AttributeError):
        return {"down": [], "error": answer.error or f"HTTP {answer.status}"}
    return {"down": rows, "error": ""}


def still_down(down: list[dict[str, str]], ca: str, pid: int) -> list[dict[str, str]]:
    """Return the down targets that do not answer now either: a scrape may be 15 s old."""
    asks = [{"name": one["url"], "url": one["url"], "ca": ca, "kind": "plain"} for one in down]
    again = within(pid, partial(all_of, asks))
    return [
        {**one, "error": (again[one["url"]]["error"] or one["error"])[:WORDS]}
        for one in down
        if again[one["url"]]["status"] != 200
    ]


def plain(ask: Ask) -> dict[str, Any]:
    """Return the status alone."""
    status, _, error = get(ask)
    return {"status": status, "error": error}


KINDS: dict[str, Callable[[Ask], dict[str, Any]]] = {
    "ready": ready,
    "gauge": gauge,
    "targets": targets,
    "plain": plain,
}


def all_of(asks: list[Ask]) -> dict[str, dict[str, Any]]:
    """Return name: answer; all checks run at the same time."""
    if not asks:
        return {}
    with ThreadPoolExecutor(min(16, len(asks))) as pool:
        asked = {ask["name"]: pool.submit(KINDS[ask["kind"]], ask) for ask in asks}
        return {name: answer.result() for name, answer in asked.items()}


def enter(pid: int) -> None:
    """Move this thread into the network of a process."""
    handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(handle, 0) != 0:
            raise OSError(ctypes.get_errno(), "the network of the container cannot be entered")
    finally:
        os.close(handle)


def within(pid: int, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a function in the network of a process, as a container would; without one, on the host.

    A container's packets pass the forward chain and the engine's rules, the host's do not.
    """
    if not pid:
        return work()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # The child must end here in any case: nothing of the module may run twice.
        try:
            os.close(read)
            enter(pid)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        body = pipe.read()
    os.waitpid(child, 0)
    return dict(json.loads(body)) if body else work()


def answers(asks: list[Ask], pids: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Return name: answer; `within` names the container from whose network a check is sent."""
    groups: dict[int, list[Ask]] = {}
    for ask in asks:
        # Prometheus answers on the host's own port; down targets are checked from its network.
        inside = 0 if ask["kind"] == "targets" else pids.get(str(ask.get("within", "")), 0)
        groups.setdefault(inside, []).append(ask)
    found: dict[str, dict[str, Any]] = {}
    for pid, group in groups.items():
        # All threads have ended before the next fork: a process with threads must not fork.
        found.update(within(pid, partial(all_of, group)))
    for ask in asks:
        if found[ask["name"]].get("down"):
            answer, pid = found[ask["name"]], pids.get(str(ask.get("within", "")), 0)
            answer["down"] = still_down(answer["down"], str(ask.get("ca", "")), pid)
    return found
