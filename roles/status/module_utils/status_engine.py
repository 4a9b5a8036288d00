"""Facts of the container engine, of Airlift's containers and of the database."""

from __future__ import annotations

import calendar
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ansible.module_utils import container_logs, engine_client
from ansible.module_utils.engine_client import EngineError
from ansible.module_utils.image_identity import image_store

#: Characters of a container's last message; a report has no room for more.
WORDS = 200
LATEST = """SELECT json_build_object('version', version, 'lowest_compatible', lowest_compatible,
 'keys', (SELECT coalesce(json_agg(json_build_array(encode(key_hash, 'hex'), client,
  origin, revoked_at IS NOT NULL, revoked_by)), '[]') FROM api_keys))
 FROM schema_version ORDER BY version DESC LIMIT 1"""


docker = partial(engine_client.docker, timeout=20)


def lines_of(*arguments: str) -> list[str]:
    """Return the client's output; raise its error message when it fails."""
    done = docker(*arguments)
    if done.returncode != 0:
        raise EngineError(short(done.stderr) or f"docker {arguments[0]} failed")
    return str(done.stdout).split("\n")


def short(text: str) -> str:
    """Return text as one line that fits a report."""
    line = " ".join(text.split())
    return line if len(line) <= WORDS else line[: WORDS - 2] + " …"


def about() -> dict[str, Any]:
    """Return the engine's image store and where it keeps its data."""
    info = engine_client.about_engine(timeout=20)
    return {"store": image_store(info), "root": str(info["DockerRootDir"])}


def inspect(kind: str, names: list[str]) -> list[dict[str, Any]]:
    """Return the engine's records of containers or images; omit those removed meanwhile."""
    if not names:
        return []
    found: list[dict[str, Any]] = json.loads(docker(kind, "inspect", *names).stdout or "[]")
    return found


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
    done = docker("logs", "--tail", "50", container["Id"])
    said = reason_in(done.stdout + done.stderr)
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
    """Return Airlift's containers, as described and as the engine has them."""
    names = lines_of("ps", "--all", "--quiet", "--no-trunc", "--filter", "label=airlift.service")
    raw = inspect("container", [name for name in names if name])
    found = []
    for one in raw:
        described = describe(one, now)
        well = described["state"] in {"healthy", "running", "starting"}
        if not well or described["restarts"]:
            described["said"] = last_error(one)
        found.append(described)
    return found, raw


def differences(raw: list[dict[str, Any]], colours: list[str], settings: list[str]) -> list[str]:
    """Return the settings in which the standby differs from the active colour.

    Compares settings that both have, those that the inventory names, and the fingerprint of the
    secrets. A setting that only one of the two releases knows is no difference.
    """
    by_service = {one["Config"]["Labels"].get("airlift.service"): one for one in raw}
    both = [by_service.get(f"app-{colour}") for colour in colours]
    if len(both) != 2 or not all(both):
        return []
    pair = [one for one in both if one]
    images = inspect("image", [one["Image"] for one in pair])
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


def login(container: str, program: str) -> dict[str, str]:
    """Return the logins of a container of the service, each with the reason for its refusal."""
    try:
        done = docker("exec", container, "python", "-c", program)
        found = json.loads(done.stdout.strip().rpartition("\n")[2])
        return {str(name): short(str(error)) for name, error in dict(found).items()}
    except EngineError as error:
        return {"its services": str(error)}
    except (ValueError, TypeError, RecursionError):
        return {"its services": reason_in(done.stderr) or "no answer of the login test"}


def logins(found: list[dict[str, Any]], program: str) -> dict[str, dict[str, str]]:
    """Return service: logins for every running colour and worker; the program tests them."""
    running = [
        one
        for one in found
        if one["running"] and one["state"] != "paused" and one["component"] == "app"
    ]
    if not running:
        return {}
    with ThreadPoolExecutor(len(running)) as pool:
        tried = {one["service"]: pool.submit(login, one["name"], program) for one in running}
        return {service: result.result() for service, result in tried.items()}


def images() -> list[str]:
    """Return the ids of the images that the host has."""
    return sorted({one for one in lines_of("image", "ls", "--quiet", "--no-trunc") if one})


def database(container: str, name: str, keys: list[str]) -> dict[str, Any]:
    """Return the schema, and which of the keys (as SHA-256) the database does not accept.

    Hashes do not leave the host: the answer names keys by their place in the list, or by client.
    """
    done = docker(
        *("exec", "--user=postgres", container, "psql", "--no-psqlrc", "--tuples-only"),
        *("--no-align", "--username=postgres", f"--dbname={name}", f"--command={LATEST}"),
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
