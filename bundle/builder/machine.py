"""The architecture of the building machine, which its bundles are for."""

from __future__ import annotations

import platform

from bundle.builder.problems import Problem

# The name of the kernel: the name of images and of Debian.
_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """Return the architecture as images name it: `amd64` or `arm64`."""
    found = platform.machine()
    if found not in _NAMES:
        known = " or ".join(_NAMES)
        raise Problem(f"bundles are built on {known}; this machine is {found}")
    return _NAMES[found]


def wheel_architecture() -> str:
    """Return the architecture as wheels name it: `x86_64` or `aarch64`."""
    architecture()
    return platform.machine()
