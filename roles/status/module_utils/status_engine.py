"""Facts of the container engine, of Airlift's containers and of the database."""

from __future__ import annotations

import calendar
import hashlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils import container_logs, engine_socket, host_tools
from ansible.module_utils.engine_client import docker, last_words
from ansible.module_utils.engine_socket import EngineError
from ansible.module_utils.image_identity import image_store

SECRETS = "/run/secrets"
#: The settings with the addresses of a container's logins.
URLS = ("DATABASE_URL", "REDIS_URL", "REDIS_CA_FILE")
#: Timeout in seconds of the engine, or of a program in a container.
PATIENCE = 20
#: Maximum characters of a container's last message in a report.
WORDS = 200
LATEST = """SELECT json_build_object('version', version, 'lowest_compatible', lowest_compatible,
 'keys', (SELECT coalesce(json_agg(json_build_array(encode(key_hash, 'hex'), client,
  origin, revoked_at IS NOT NULL, revoked_by)), '[]') FROM api_keys))
 FROM schema_version ORDER BY version DESC LIMIT 1"""


def short(text: str) -> str:
    """Return text as one line that fits a report."""
    line = " ".join(text.split())
    return line if len(line) <= WORDS else line[: WORDS - 2] + " …"


def about() -> dict[str, Any]:
    """Return the engine's image store and data directory."""
    info = engine_socket.ask("/info")
    return {"store": image_store(info), "root": str(info["DockerRootDir"])}


def inspect(kind: str, names: list[str]) -> list[dict[str, Any]]:
    """Return the engine's records of `containers` or `images`; omit those removed meanwhile."""
    found = (engine_socket.ask(f"/{kind}/{name}/json") for name in names)
    return [one for one in found if one is not None]


def seconds_since(moment: str, now: float) -> int:
    """Return the seconds since a time in the engine's format; 0 when there is none."""
    try:
        return max(0, int(now - calendar.timegm(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S"))))
    except ValueError:
        return 0


def reason_in(text: str) -> str:
    """Return the last error of a log, in one line."""
    return short(container_logs.last_error(text))


def last_error(container: dict[str, Any]) -> str:
    """Return why a container is not well, from its health check, its exit or its log."""
    state = container["State"]
    if state.get("OOMKilled"):
        return "it was killed because it reached its memory limit"
    if state.get("Error"):
        return short(str(state["Error"]))
    said = short(last_words(container["Id"]))
    health = [one for one in (state.get("Health") or {}).get("Log") or [] if one.get("ExitCode")]
    checked = reason_in(str(health[-1].get("Output", ""))) if health else ""
    if checked and not container_logs.TROUBLE.search(said):
        return checked
    return said or checked


def describe(container: dict[str, Any], now: float) -> dict[str, Any]:
    """Return what the report needs of one container, without its environment."""
    state, labels = container["State"], container["Config"]["Labels"]
    status = str(state["Status"])
    health = str((state.get("Health") or {}).get("Status") or "none")
    began = state["StartedAt"] if status in {"running", "paused"} else state["FinishedAt"]
    return {
        "name": str(container["Name"]).lstrip("/"),
        "service": labels.get("airlift.service", ""),
        "component": labels.get("airlift.component", ""),
        "release": labels.get("airlift.release", ""),
        "version": labels.get("airlift.version", ""),
        "colour": labels.get("airlift.colour", ""),
        "image": container["Image"],
        "state": status if status != "running" or health == "none" else health,
        "running": bool(state.get("Running")),
        "seconds": seconds_since(str(began), now),
        "restarts": int(container.get("RestartCount") or 0),
        "exit_code": int(state.get("ExitCode") or 0),
        "restart_policy": container["HostConfig"]["RestartPolicy"].get("Name", ""),
        "pid": int(state.get("Pid") or 0),
        "ports": published(container) if state.get("Running") else [],
        "said": "",
    }


def published(container: dict[str, Any]) -> list[int]:
    """Return the ports of the host that lead to a container."""
    bindings = (container.get("NetworkSettings") or {}).get("Ports") or {}
    return sorted({int(one["HostPort"]) for found in bindings.values() for one in found or []})


def containers(now: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return Airlift's containers: as described here, and as the engine records them."""
    listed = engine_socket.ask(
        "/containers/json", all="true", filters={"label": ["airlift.service"]}
    )
    raw = inspect("containers", [one["Id"] for one in listed])
    found = []
    for one in raw:
        described = describe(one, now)
        well = described["state"] in {"healthy", "running", "starting"}
        if not well or described["restarts"]:
            described["said"] = last_error(one)
        found.append(described)
    return found, raw


def edge(agent: str) -> dict[str, Any]:
    """Return what the swap agent shows; C(msg) is the reason when it does not."""
    done = host_tools.run(agent, "show", seconds=PATIENCE)
    if done.returncode == host_tools.ABSENT:
        return {"msg": f"there is no {agent} on this host"}
    try:
        return dict(json.loads(done.stdout))
    except (ValueError, TypeError, RecursionError):
        return {"msg": short(done.stderr).replace("airlift-swap: ", "", 1) or "it says nothing"}


def colours(facts: dict[str, Any]) -> set[str]:
    """Return the active and standby colours, as far as a host knows."""
    edge = facts.get("edge") or {}
    if edge.get("installed"):
        return {str(edge[name]) for name in ("active", "standby") if edge.get(name)}
    return {one["colour"] for one in facts["containers"] if one["colour"]}


def differences(raw: list[dict[str, Any]], settings: list[str]) -> list[str]:
    """Return the settings in which two colours differ, the standby and the active one.

    Compares settings that both have, those that the inventory names, and the fingerprint of the
    secrets. A setting that only one of the two releases knows is no difference.
    """
    services = (one["Config"]["Labels"].get("airlift.service") or "" for one in raw)
    pair = [one for one, name in zip(raw, services) if name.startswith("app-")]
    if len(pair) != 2:
        return []
    images = inspect("images", [one["Image"] for one in pair])
    of_image = {one["Id"]: set(one["Config"].get("Env") or []) for one in images}
    active, standby = (
        dict(
            line.split("=", 1)
            for line in one["Config"]["Env"] or []
            if line not in of_image.get(one["Image"], set())
        )
        for one in pair
    )
    compared = (set(active) & set(standby) | set(settings)) - {"COLOUR"}
    found = sorted(name for name in compared if active.get(name) != standby.get(name))
    prints = [one["Config"]["Labels"].get("airlift.fingerprint") for one in pair]
    return found + (["secrets"] if prints[0] != prints[1] else [])


def _begin(*arguments: str) -> subprocess.Popen[str]:
    """Start the engine's client."""
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise EngineError(f"the engine's client cannot be started: {error}") from None


def _credentials(raw: dict[str, Any]) -> tuple[Any, ...]:
    """Return everything that affects a container's logins: image, addresses, current secrets."""
    places = [m["Source"] for m in raw.get("Mounts") or [] if m.get("Destination") == SECRETS]
    files = sorted(one for place in places for one in Path(place).glob("*"))
    settings = sorted(one for one in raw["Config"]["Env"] or [] if one.partition("=")[0] in URLS)
    try:
        secrets = [(one.name, hashlib.sha256(one.read_bytes()).digest()) for one in files]
    except OSError:
        secrets = []
    return (raw["Image"], *settings, *(secrets or [raw["Id"]]))


class Logins:
    """Tests of logins in the running colours and workers, in parallel with other queries.

    Containers with the same image, addresses and secrets share one test, which takes a second of
    CPU time.
    """

    def __init__(
        self, found: list[dict[str, Any]], raw: list[dict[str, Any]], program: str
    ) -> None:
        self._deadline = time.monotonic() + PATIENCE
        self._alike: dict[str, tuple[Any, ...]] = {}
        self._tests: dict[tuple[Any, ...], subprocess.Popen[str]] = {}
        for one, container in zip(found, raw):
            if not one["running"] or one["state"] == "paused" or one["component"] != "app":
                continue
            kind = self._alike[one["service"]] = _credentials(container)
            if kind not in self._tests:
                self._tests[kind] = _begin("exec", one["name"], "python", "-c", program)

    def results(self) -> dict[str, dict[str, str]]:
        """Return service: its logins, each with the reason for its refusal."""
        said = {kind: self._result(process) for kind, process in self._tests.items()}
        return {service: dict(said[kind]) for service, kind in self._alike.items()}

    def _result(self, process: subprocess.Popen[str]) -> dict[str, str]:
        try:
            out, err = process.communicate(timeout=max(0.1, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return {"its services": f"the engine did not answer within {PATIENCE} s"}
        try:
            found = json.loads(out.strip().rpartition("\n")[2])
            return {str(name): short(str(error)) for name, error in dict(found).items()}
        except (ValueError, TypeError, RecursionError):
            return {"its services": reason_in(err) or "no answer of the login test"}


def images() -> list[str]:
    """Return the ids of the images that the host has."""
    return sorted({str(one["Id"]) for one in engine_socket.ask("/images/json")})


def database(container: str, name: str, keys: list[str]) -> dict[str, Any]:
    """Return the schema version, and which keys (as SHA-256) the database does not accept.

    Hashes do not leave the host: the answer has a key's position in the list, or its client.
    """
    done = docker(
        *("exec", "--user=postgres", container, "psql", "--no-psqlrc", "--tuples-only"),
        *("--no-align", "--username=postgres", f"--dbname={name}", f"--command={LATEST}"),
        timeout=PATIENCE,
    )
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return {"error": reason_in(done.stderr) or "it does not report its schema"}
    known = {one[0]: one[1:] for one in said["keys"]}
    revoked = {digest: by for digest, (_, _, gone, by) in known.items() if gone}
    places = list(enumerate(keys))
    return {
        "version": said["version"],
        "lowest_compatible": said["lowest_compatible"],
        "missing": [
            place
            for place, key in places
            if key not in known or revoked.get(key, "command") != "command"
        ],
        "revoked": [place for place, key in places if revoked.get(key) == "command"],
        "unknown": sorted(
            client
            for digest, (client, origin, gone, _) in known.items()
            if origin == "file" and not gone and digest not in keys
        ),
    }
