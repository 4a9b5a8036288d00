#!/usr/bin/python
"""Set kernel parameters, now and after each start of the host.

It writes them to C(path) and sets those that differ now. If the kernel's settings cannot be written
(a container that shares them with its machine), only the file is written, and a warning names the
missing ones. It returns the former values of what was set.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.host_module import answer
from ansible.module_utils.kernel_values import run


def work(module: Any) -> dict[str, Any]:
    """Set, and tell."""
    result: dict[str, Any] = run(module.params, check=module.check_mode)
    for warning in result.pop("warnings"):
        module.warn(warning)
    return result


OPTIONS = {
    # A file below sysctl.d; the last one in alphabetical order wins.
    "path": {"type": "path", "required": True},
    "settings": {"type": "dict", "required": True},
    # Name and a value that somebody chose and that stays, with a warning.
    "leave": {"type": "dict", "default": {}},
    # Where the kernel shows its settings.
    "root": {"type": "path", "default": "/proc/sys"},
}

if __name__ == "__main__":
    answer(work, OPTIONS)
