"""Merge settings into the engine's configuration without touching the client's own keys.

Puts settings into the file and leaves every other key as it is (dns, proxies,
insecure-registries). A key that an earlier run put there and that is no longer among the settings
goes again. The engine's own program judges the result, together with the flags with which its unit
starts it, before it is put in place; a key that is both a flag and in the file keeps an engine from
starting. Options of a log driver go with it when another one is set.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.host_tools import ABSENT, RefusedError, replace, run

LOG_DRIVER, LOG_OPTIONS = "log-driver", "log-opts"
#: The error message of engines before 23, which cannot check a configuration.
UNKNOWN_FLAG = "unknown flag: --validate"
UNIT = "docker.service"
#: What an engine reads unless a flag names another file.
DEFAULT = "/etc/docker/daemon.json"


def read(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if the file is missing or empty."""
    raw = path.read_bytes() if path.exists() else b""
    try:
        found = json.loads(raw.decode() or "{}")
    except (ValueError, RecursionError) as error:
        message = f"{path} is not JSON ({error}): correct it, or move it away"
        raise RefusedError(message) from error
    if not isinstance(found, dict):
        message = f"{path} is JSON, but not an object: correct it, or move it away"
        raise RefusedError(message)
    return found


def combined(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, merged key by key; ours takes precedence."""
    result = dict(theirs)
    for key, value in ours.items():
        there = result.get(key)
        both = isinstance(value, Mapping) and isinstance(there, Mapping)
        result[key] = combined(there, value) if both else value  # type: ignore[arg-type]
    return result


def merged(
    current: Mapping[str, Any], last: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the wanted content of the file."""
    theirs = {
        key: value
        for key, value in current.items()
        # Remove what we set and no longer want, unless the client changed it since.
        if key in settings or key not in last or last[key] != value
    }
    if theirs.get(LOG_DRIVER, "json-file") != settings.get(LOG_DRIVER, theirs.get(LOG_DRIVER)):
        theirs.pop(LOG_OPTIONS, None)
    return combined(theirs, settings)


def flags(pidfile: Path) -> list[str]:
    """Return the flags of the running engine; empty if none runs."""
    try:
        words = Path(f"/proc/{pidfile.read_text().strip()}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    return [word.decode(errors="replace") for word in words[1:] if word]


def environment(lines: Iterator[tuple[str, str]]) -> dict[str, str]:
    """Return the variables of a unit, from what systemd shows of it; its files override."""
    shown = list(lines)
    words = [word for name, value in shown if name == "Environment" for word in shlex.split(value)]
    for name, value in shown:
        if name == "EnvironmentFiles":
            try:
                text = Path(value.rpartition(" (")[0]).read_text(errors="replace")
                words += shlex.split(text, comments=True)
            except (OSError, ValueError):
                continue  # The unit itself does not start then, or was told to ignore it.
    return dict(word.split("=", 1) for word in words if "=" in word)


def unit_flags() -> list[str]:
    """Return the flags with which systemd will start the engine; none when it has no such unit.

    They may differ from those of the engine that runs: an administrator has edited the unit since.
    """
    names = "ExecStart,Environment,EnvironmentFiles"
    shown = run("systemctl", "show", UNIT, f"--property={names}").stdout.splitlines()
    pairs = [(name, value) for name, _, value in (line.partition("=") for line in shown)]
    starts = [
        re.search(r"argv\[\]=(.*?) ; ", value) for name, value in pairs if name == "ExecStart"
    ]
    if not starts or not starts[0]:
        return []
    variables, found = environment(iter(pairs)), []
    for word in starts[0].group(1).split()[1:]:
        # As systemd does it: a word of its own becomes words, ${NAME} stays within its word.
        if re.fullmatch(r"\$\w+", word):
            found += shlex.split(variables.get(word[1:], ""))
        else:
            found.append(re.sub(r"\$\{(\w+)\}", lambda one: variables.get(one[1], ""), word))
    return [word for word in found if word]


def without_file(given: Sequence[str], path: Path) -> list[str]:
    """Return the flags without the one that names the file; refuse one that names another."""
    rest, files, due = [], [], False
    for one in given:
        if due or one.startswith("--config-file="):
            files.append(one.partition("=")[2] if not due else one)
            due = False
        elif one == "--config-file":
            due = True
        else:
            rest.append(one)
    other = [one for one in files if one not in (DEFAULT, str(path))]
    if other:
        message = (
            f"the engine reads {other[0]} and not {path}: take --config-file out of its unit "
            f"(systemctl cat {UNIT}), with its keys moved to {path}"
        )
        raise RefusedError(message)
    return rest


def said_of(content: Mapping[str, Any], given: Sequence[str]) -> str:
    """Return the error message of the engine's program about a configuration, or ''."""
    handle, name = tempfile.mkstemp(prefix="airlift-", suffix=".json")
    try:
        with os.fdopen(handle, "w") as stream:
            json.dump(content, stream)
        done = run("dockerd", "--validate", f"--config-file={name}", *given)
    finally:
        Path(name).unlink()
    words = (done.stderr or done.stdout).strip().replace(f" with file {name}", "")
    return "" if done.returncode in (0, ABSENT) or UNKNOWN_FLAG in words else words


def judge(wanted: Mapping[str, Any], current: Mapping[str, Any], path: Path, pidfile: Path) -> None:
    """Let the engine's program judge a configuration, with the flags that it will be started with.

    Without a unit of systemd, those are the flags of the engine that runs.
    """
    given = without_file(unit_flags() or flags(pidfile), path)
    words = said_of(wanted, given)
    # An error that the current configuration has too is not caused by our change.
    if words and words != said_of(current, given):
        message = (
            f"the engine would not start with what Airlift sets: {words}. Its flags are: "
            f"{' '.join(given) or 'none'}. Take a flag that is also a key out of its unit "
            f"(systemctl cat {UNIT}, /etc/default/docker), or set the key with "
            "container_engine_options"
        )
        raise RefusedError(message)


def stopped_by_a_restart() -> list[str]:
    """Return the running containers that a restart of the engine would stop."""
    if run("docker", "info", "--format", "{{.LiveRestoreEnabled}}").stdout.strip() != "false":
        return []
    return sorted(run("docker", "ps", "--format", "{{.Names}}").stdout.split())


def is_unread(path: Path, pidfile: Path) -> bool:
    """Say whether the engine was started before its configuration was written.

    A run that was killed between the two leaves it so.
    """
    try:
        return pidfile.stat().st_mtime < path.stat().st_mtime
    except OSError:
        return False


def text(content: Mapping[str, Any]) -> str:
    """Return the text of a file with this content."""
    return json.dumps(content, indent=4, sort_keys=True) + "\n"


def bring(module: Any, path: Path, pidfile: Path) -> dict[str, Any]:
    """Write the configuration and return the differences."""
    settings, record = module.params["settings"], Path(module.params["record"])
    current, last = read(path), read(record)
    wanted = merged(current, last, settings)
    keys = sorted({*current, *wanted})
    changes = [key for key in keys if current.get(key) != wanted.get(key)]
    result: dict[str, Any] = {
        "changed": bool(changes),
        "restart": bool(changes) or is_unread(path, pidfile),
        # The record as well: what we put there goes again only if it names it.
        "due": bool(changes) or last != settings,
        "found": bool(current),
        "changes": changes,
        "kept": sorted(set(wanted) - set(settings)),
        "diff": {"before": current, "after": wanted},
    }
    if result["restart"]:
        result["stops"] = stopped_by_a_restart()
    if changes:
        judge(wanted, current, path, pidfile)
    if not module.check_mode:
        if changes:
            if path.exists():
                module.backup_local(str(path))
            replace(path, text(wanted))
        if last != settings:
            replace(record, text(settings))
    return result
