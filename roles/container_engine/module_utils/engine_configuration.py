"""Merge settings into the engine's configuration without touching the client's own keys.

- Keys of the client (dns, proxies, insecure-registries) stay as they are.
- A key that an earlier run set and that is no longer wanted is removed.
- Options of a log driver are removed when another driver is set.
- The engine's program checks the result together with the flags of the running engine before the
  file is replaced: a key that is both a flag and in the file prevents the start of the engine.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.host_tools import ABSENT, RefusedError, replace, run

LOG_DRIVER, LOG_OPTIONS = "log-driver", "log-opts"
#: The error message of engines before 23, which cannot check a configuration.
UNKNOWN_FLAG = "unknown flag: --validate"


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


def judge(wanted: Mapping[str, Any], current: Mapping[str, Any], pidfile: Path) -> None:
    """Check a configuration with the engine's program and the running engine's flags."""
    given = [one for one in flags(pidfile) if not one.startswith("--config-file=")]
    if "--config-file" in given:
        place = given.index("--config-file")
        del given[place : place + 2]
    words = said_of(wanted, given)
    # An error that the current configuration has too is not caused by our change.
    if words and words != said_of(current, given):
        message = (
            f"the engine would not start with what Airlift sets: {words}. Its flags are: "
            f"{' '.join(given) or 'none'}. Take a flag that is also a key out of its unit "
            "(systemctl cat docker.service, /etc/default/docker), or set the key with "
            "container_engine_options"
        )
        raise RefusedError(message)


def stopped_by_a_restart() -> list[str]:
    """Return the running containers that a restart of the engine would stop."""
    if run("docker", "info", "--format", "{{.LiveRestoreEnabled}}").stdout.strip() != "false":
        return []
    return sorted(run("docker", "ps", "--format", "{{.Names}}").stdout.split())


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
        # Write the record too: without it, a later run could not remove our keys.
        "due": bool(changes) or last != settings,
        "found": bool(current),
        "changes": changes,
        "kept": sorted(set(wanted) - set(settings)),
        "diff": {"before": current, "after": wanted},
    }
    if changes:
        result["stops"] = stopped_by_a_restart()
        judge(wanted, current, pidfile)
    if not module.check_mode:
        if changes:
            if path.exists():
                module.backup_local(str(path))
            replace(path, text(wanted))
        if last != settings:
            replace(record, text(settings))
    return result
