"""The container engine's client, for modules on hosts."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from ansible.module_utils.container_logs import last_error
from ansible.module_utils.engine_socket import NONE, EngineError


class NoEngineError(EngineError):  # type: ignore[misc]
    """The host has no engine."""


def docker(
    *arguments: str, timeout: float | None = 300, **how: Any
) -> subprocess.CompletedProcess[str]:
    """Run the engine's client; `how` is for its standard input."""
    how = {"capture_output": True, "text": True, "errors": "replace", **how}
    try:
        return subprocess.run(["docker", *arguments], timeout=timeout, check=False, **how)
    except FileNotFoundError:
        raise NoEngineError(NONE) from None
    except subprocess.TimeoutExpired:
        raise EngineError(f"docker {arguments[0]} did not end within {timeout:.0f} s") from None


def about_engine(timeout: float = 300) -> dict[str, Any]:
    """Return what the engine says of itself."""
    answer = docker("info", "--format", "{{json .}}", timeout=timeout)
    if answer.returncode != 0:
        raise EngineError(answer.stderr.strip() or "the engine does not answer")
    info: dict[str, Any] = json.loads(answer.stdout)
    # If the engine is down, the client still succeeds, with empty answers.
    if not info.get("ServerVersion"):
        said = info.get("ServerErrors") or ["the engine does not answer"]
        raise EngineError(str(said[0]))
    return info


def last_words(container: str, *, plain: bool = True) -> str:
    """Return what a container's log says is wrong; `plain` as for `last_error`."""
    said = docker("logs", "--tail", "50", container, timeout=20)
    return last_error(said.stdout + said.stderr, plain=plain) or "it logged nothing"
