"""Reports of a healthy site's hosts; each test breaks the part that it checks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from roles.status.logic import report as made

EXPECTED = {
    "dmz": ["edge", "nginx-exporter"],
    "app": ["app-COLOUR", "worker-COLOUR"],
    "data": ["postgres", "redis"],
    "monitor": ["prometheus", "grafana"],
    "all": ["node-exporter"],
}
NAMES = ("app", "nginx", "nginx-exporter", "postgres", "redis", "prometheus", "node-exporter")
COMPONENTS: dict[str, Any] = {
    name: {
        "manifest_digest": f"sha256:m-{name}",
        "config_digest": f"sha256:c-{name}",
        "layers": [],
    }
    for name in NAMES
}
OLD: dict[str, Any] = {
    "app": {"manifest_digest": "sha256:m-old", "config_digest": "sha256:c-old", "layers": []}
}
ZONES = {
    "dmz": ["edge-1"],
    "app": ["app-1", "app-2"],
    "data": ["data-1"],
    "monitor": ["mon-1"],
}
RUNS = {
    "edge-1": ["edge", "nginx-exporter", "node-exporter"],
    "app-1": ["app-blue", "worker-blue", "node-exporter"],
    "app-2": ["app-blue", "worker-blue", "node-exporter"],
    "data-1": ["postgres", "redis", "node-exporter"],
    "mon-1": ["prometheus", "node-exporter"],
}
EDGE: dict[str, Any] = {
    "installed": True,
    "active": "blue",
    "standby": None,
    "release": "1.0.0",
    "serial": 1,
    "generation": 3,
    "live_generation": 3,
    "served_generation": 3,
    "since": "2026-01-01T00:00:00Z",
    "previous_release": None,
    "previous_serial": None,
    "warm_until": None,
    "lease": None,
    "unfinished": [],
    "last_run": None,
    "now": "2026-01-02T00:00:00Z",
}


#: Give the answer of the longest matching beginning.
PROGRAM = """
import json, sys
known = json.load(open(sys.argv[0] + ".json"))
line = " ".join(sys.argv[1:])
best = max((one for one in known if line.startswith(one)), key=len, default=None)
out, err, code = known.get(best, ["", "not on paper: " + line, 9])
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


class Programs:
    """Fake programs of a host that answer by their first arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answer(
        self, program: str, words: str, *, out: str = "", err: str = "", code: int = 0
    ) -> None:
        """Set the answer of a program."""
        file = self.folder / f"{program}.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**known, words: [out, err, code]}))
        (self.folder / program).write_text(f"#!{sys.executable}\n{PROGRAM}")
        (self.folder / program).chmod(0o755)


def container(service: str, *, release: str = "1.0.0", image: str = "") -> dict[str, Any]:
    """Return a healthy container."""
    of_app = service.startswith(("app-", "worker-"))
    component = "app" if of_app else {"edge": "nginx"}.get(service, service)
    return {
        "name": f"airlift-{service}",
        "service": service,
        "component": component,
        "release": release if of_app else "",
        "version": "9",
        "colour": service.rpartition("-")[2] if of_app else "",
        "image": image or f"sha256:c-{component}",
        "state": "healthy",
        "running": True,
        "seconds": 300,
        "restarts": 0,
        "exit_code": 0,
        "restart_policy": "unless-stopped",
        "said": "",
    }


def answer(colour: str = "blue", release: str = "1.0.0") -> dict[str, Any]:
    """Return a healthy readiness answer."""
    checks = {"postgres": "ok", "redis": "ok"}
    said = {"status": 200, "ready": "ready", "checks": checks, "error": ""}
    return {**said, "release": release, "colour": colour}


def facts(services: list[str]) -> dict[str, Any]:
    """Return the facts of a healthy host."""
    return {
        "engine": {"error": "", "store": "overlay2", "root": "/var/lib/docker"},
        "containers": [container(service) for service in services],
        "images": ["sha256:c-app", "sha256:c-old"],
        "differences": [],
        "logins": {},
        "database": {},
        "answers": {},
        "forwarding": True,
        "engine_rules": {"missing": [], "blocked": False},
        "firewall": {"table": "", "enabled": True},
        "disks": [{"path": "/var/lib/docker", "percent": 40}],
    }


def site(folder: Path) -> dict[str, Any]:
    """Return the findings of a site that serves 1.0.0 with blue."""
    hosts = {host: {"facts": facts(services)} for host, services in RUNS.items()}
    hosts["edge-1"]["facts"]["answers"] = {
        "edge": answer(),
        "app-blue on app-1": answer(),
        "app-blue on app-2": answer(),
        "nginx-exporter": {"value": 1.0, "error": ""},
    }
    for host in ZONES["app"]:
        hosts[host]["facts"]["answers"] = {"app-blue": answer(), "worker-blue": answer()}
    hosts["data-1"]["facts"]["database"] = {
        "version": 1,
        "lowest_compatible": 1,
        "missing": [],
        "revoked": [],
        "unknown": [],
    }
    hosts["mon-1"]["facts"]["answers"] = {"targets": {"down": [], "error": ""}}
    return {
        "site": "acme",
        "release": "1.0.0",
        "serial": 1,
        "components": COMPONENTS,
        "absent": {"grafana": {"reason": "no package"}},
        "expected": EXPECTED,
        "zones": ZONES,
        "asked": list(RUNS),
        "hosts": hosts,
        "edge": dict(EDGE),
        "clients": ["shop", "airlift-smoke"],
        "command": "ansible-playbook playbooks/",
        "colours": ["blue", "green"],
        "releases_dir": str(folder),
        "store": str(folder / "store"),
    }


def upgrade(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let green serve 1.1.0, with blue as standby for 1.0.0."""
    for release, components, head in (("1.0.0", OLD, 1), ("1.1.0", COMPONENTS, 2)):
        (folder / release).mkdir()
        manifest = {"components": components, "schema": {"head": head}}
        (folder / release / "manifest.json").write_text(json.dumps(manifest))
    found["edge"] |= {"active": "green", "standby": "blue", "release": "1.1.0", "serial": 2}
    found["edge"] |= {"previous_release": "1.0.0", "previous_serial": 1}
    found["edge"] |= {"warm_until": "2026-01-03T00:00:00Z"}
    found |= {"release": "1.1.0", "serial": 2}
    asked = of(found, "edge-1")["answers"]
    for host in ZONES["app"]:
        said = of(found, host)
        green = [container(name, release="1.1.0") for name in ("app-green", "worker-green")]
        blue = container("app-blue", image="sha256:c-old")
        said["containers"] = [*green, container("node-exporter"), blue]
        said["answers"] = {
            "app-green": answer("green", "1.1.0"),
            "worker-green": answer("green", "1.1.0"),
            "app-blue": answer(),
        }
        asked[f"app-green on {host}"] = answer("green", "1.1.0")
    return found


def of(found: dict[str, Any], host: str) -> dict[str, Any]:
    """Return the facts of a host."""
    said: dict[str, Any] = found["hosts"][host]["facts"]
    return said


def one_of(found: dict[str, Any], host: str, service: str) -> dict[str, Any]:
    """Return a container of a host."""
    said: list[dict[str, Any]] = of(found, host)["containers"]
    return next(one for one in said if one["service"] == service)


def remove(found: dict[str, Any], host: str, service: str) -> None:
    """Remove a container."""
    of(found, host)["containers"].remove(one_of(found, host, service))


def limit(found: dict[str, Any], *hosts: str) -> None:
    """Query only these hosts, as --limit does; the edge is still asked for the active release."""
    found["asked"] = list(hosts)
    found["hosts"] = {host: found["hosts"][host] for host in hosts}


def text(found: dict[str, Any]) -> str:
    """Return the report as text."""
    return str(made.make(found)["text"])


def report(found: dict[str, Any]) -> dict[str, Any]:
    """Return the report as JSON, as if read from its file."""
    document: dict[str, Any] = json.loads(json.dumps(made.make(found)["report"]))
    return document


def problems(found: dict[str, Any]) -> list[str]:
    """Return the problems, in the order of the report."""
    return [str(one["found"]) for one in report(found)["problems"]]


def note(
    step: str, event: str = "intent", *, run: str = "r1", seq: int = 1, **data: Any
) -> dict[str, Any]:
    """Return a record of the journal."""
    at = "2026-01-02T00:00:00Z"
    return {"step": step, "event": event, "time": at, "run": run, "seq": seq, "data": data}
