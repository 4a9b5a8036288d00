#!/usr/bin/python
"""Set kernel parameters, now and after each start; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_settings
short_description: Set kernel parameters, now and after each start of the host
description:
  - Writes them to O(path) and sets those that differ now.
  - If the kernel's settings cannot be written (a container that shares them with its machine), only
    the file is written, and a warning names the missing ones.
options:
  path: {type: path, required: true,
    description: A file below sysctl.d; the last one in alphabetical order wins.}
  settings: {description: Name and value., type: dict, required: true}
  leave: {type: dict, default: {},
    description: "Name and a value that somebody chose and that stays, with a warning."}
  root: {description: Where the kernel shows its settings., type: path, default: /proc/sys}
"""

RETURN = r"""
was: {description: Name and former value of what was set., returned: always, type: dict}
"""

from typing import Any  # noqa: E402

from ansible.module_utils.host_module import answer  # noqa: E402
from ansible.module_utils.kernel_values import run  # noqa: E402


def work(module: Any) -> dict[str, Any]:
    """Set, and tell."""
    result: dict[str, Any] = run(module.params, check=module.check_mode)
    for warning in result.pop("warnings"):
        module.warn(warning)
    return result


OPTIONS = {
    "path": {"type": "path", "required": True},
    "settings": {"type": "dict", "required": True},
    "leave": {"type": "dict", "default": {}},
    "root": {"type": "path", "default": "/proc/sys"},
}

if __name__ == "__main__":
    answer(work, OPTIONS)
