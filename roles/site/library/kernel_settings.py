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
  path:
    description: A file below sysctl.d; the last one in alphabetical order wins.
    type: path
    required: true
  settings:
    description: Name and value.
    type: dict
    required: true
  leave:
    description: Name and value of a site's own choice, which is kept with a warning.
    type: dict
    default: {}
  root:
    description: Where the kernel shows its settings.
    type: path
    default: /proc/sys
"""

EXAMPLES = r"""
- name: Forward
  kernel_settings:
    path: /etc/sysctl.d/99-zz-airlift.conf
    settings: {net.ipv4.ip_forward: 1}
"""

RETURN = r"""
was:
  description: Name and former value of what was set.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.kernel_values import run  # noqa: E402


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "settings": {"type": "dict", "required": True},
            "leave": {"type": "dict", "default": {}},
            "root": {"type": "path", "default": "/proc/sys"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, check=module.check_mode)
        for warning in result.pop("warnings"):
            module.warn(warning)
        module.exit_json(**result)
    except OSError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
