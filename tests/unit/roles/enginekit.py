"""Shared parts of tests with containers on a real engine."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

#: Any image with a shell works.
IMAGE = "airlift/redis:debian"


def docker(*arguments: str) -> str:
    """Return the output of the engine's client."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def require_image() -> None:
    """Skip the test if this machine lacks the image."""
    held = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False)
    if held.returncode:
        pytest.skip(f"no image {IMAGE}; make images")


def settings_in(folder: Path) -> dict[str, Any]:
    """Return the variables of the role container for a site with its files in this folder."""
    return {
        "services": str(folder / "services"),
        "secrets": str(folder / "secrets"),
        "fingerprint_key": str(folder / "fingerprint-key"),
        "network": "none",
        "address": "127.0.0.1",
        "log_size": "1m",
        "log_files": 2,
        "ports": {},
        "images": {"redis": docker("image", "inspect", "--format", "{{.Id}}", IMAGE)},
        "components": {"redis": {"version": "8"}},
    }
