"""The container engine's client, for modules on hosts."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from ansible.module_utils.engine_socket import EngineError


class NoEngineError(EngineError):  # type: ignore[misc]
    """The host has no engine."""


def docker(*arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """Run the engine's client."""
    how: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace"}
    try:
        return subprocess.run(["docker", *arguments], timeout=timeout, check=False, **how)
    except FileNotFoundError:
        raise NoEngineError("there is no container engine on this host") from None
    except subprocess.TimeoutExpired:
        raise EngineError(f"docker {arguments[0]} did not end within {timeout} s") from None


def about_engine(timeout: int = 300) -> dict[str, Any]:
    """Return the engine's information about itself."""
    answer = docker("info", "--format", "{{json .}}", timeout=timeout)
    if answer.returncode != 0:
        raise EngineError(answer.stderr.strip() or "the engine does not answer")
    info: dict[str, Any] = json.loads(answer.stdout)
    # If the engine is down, the client still succeeds, with empty answers.
    if not info.get("ServerVersion"):
        said = info.get("ServerErrors") or ["the engine does not answer"]
        raise EngineError(str(said[0]))
    return info
