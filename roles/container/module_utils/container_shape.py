"""Convert a container's description to the engine's parameters."""

from __future__ import annotations

from typing import Any

#: Directory of secrets in a container.
SECRETS = "/run/secrets"
#: A removed option must also be removed from the container; options of the image may stay.
STRICT = ("mounts", "published_ports", "etc_hosts", "tmpfs", "capabilities")


def name_of(one: dict[str, Any]) -> str:
    """Return the engine's name of a container."""
    return f"airlift-{one['name']}"


def has_secrets(one: dict[str, Any]) -> bool:
    """Return whether a container has a directory of secrets."""
    return bool(one["secrets"] or one["secret_files"])


def places(one: dict[str, Any], settings: dict[str, Any]) -> tuple[str, str]:
    """Return the host's directories of a container's configuration and secrets."""
    return f"{settings['services']}/{one['name']}", f"{settings['secrets']}/{one['name']}"


def target_of(one: dict[str, Any]) -> str:
    """Return the path of the configuration in the container."""
    return str(one["config_target"] or f"/etc/airlift/{one['name']}")


def mounts(one: dict[str, Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all bind mounts; each is read-only unless its entry says otherwise."""
    configs, secrets = places(one, settings)
    wanted = [{"source": configs, "target": target_of(one)}] if one["configs"] else []
    wanted += [{"source": secrets, "target": SECRETS}] if has_secrets(one) else []
    return [
        {
            "type": "bind",
            "source": mount["source"],
            "target": mount["target"],
            "read_only": bool(mount.get("read_only", True)),
        }
        for mount in wanted + one["mounts"]
    ]


def both(one: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that permanent containers and one-time commands share."""
    return {
        "name": name_of(one),
        "image": one["image"],
        "pull": "never",
        "entrypoint": one["command"][:1],
        "command_handling": "correct",
        "user": one["user"],
        "env": {name: str(value) for name, value in one["env"].items()},
        "network_mode": one["network"],
        "etc_hosts": one["extra_hosts"],
        "mounts": mounts(one, settings),
        "tmpfs": one["tmpfs"],
        "read_only": True,
        "init": True,
        "security_opts": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        "memory": one["memory"],
        "memory_swap": one["memory"],
        "pids_limit": one["pids"],
        "log_driver": "json-file",
    }


def once(one: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a one-time command; it replaces the rest of a killed run."""
    return {
        **both(one, settings),
        "hostname": None if one["network"] in ("host", "none") else one["name"],
        "command": one["command"][1:],
        "healthcheck": {"test": ["NONE"]},
        "detach": False,
        "cleanup": True,
        "recreate": True,
    }


def stays(one: dict[str, Any], settings: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    """Return the parameters of a permanent container; a label holds its files' fingerprint."""
    host = one["network"] == "host"
    return {
        **both(one, settings),
        "hostname": None if host else one["name"],
        # If it is empty, the module would compare it with the image's command, which is not
        # started.
        "command": one["command"][1:] or None,
        "published_ports": []
        if host
        else [f"{one['address']}:{port['host']}:{port['container']}" for port in one["ports"]],
        "capabilities": [],
        "cpus": one["cpus"],
        "shm_size": one["shm_size"],
        # A container that must run starts with the engine. One that must not run is removed, not
        # stopped.
        "restart_policy": "always",
        "stop_timeout": one["stop_timeout"],
        "stop_signal": one["stop_signal"] or None,
        "log_options": {"max-size": one["log_size"], "max-file": str(one["log_files"])},
        "healthcheck": one["healthcheck"] or None,
        "labels": {
            **one["labels"],
            "airlift.service": one["name"],
            "airlift.component": one["component"],
            "airlift.version": str(one["version"]),
            "airlift.fingerprint": fingerprint,
        },
        "comparisons": dict.fromkeys(STRICT, "strict"),
        "state": "started",
    }


def absent(one: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a container that must not exist."""
    return {"name": name_of(one), "state": "absent", "stop_timeout": one["stop_timeout"]}


def check(one: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Return the command that checks staged files at the path that the container uses."""
    if not one["config_check"]:
        return []
    command = ["docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"]
    command += ["--user", one["user"], "--entrypoint", one["config_check"][0]]
    command += ["--volume", f"%s:{target_of(one)}:ro", "--tmpfs", "/tmp"]  # noqa: S108
    if has_secrets(one):
        command += ["--volume", f"{places(one, settings)[1]}:{SECRETS}:ro"]
    return [*command, one["image"], *one["config_check"][1:]]
