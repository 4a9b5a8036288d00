#!/usr/bin/python
"""Write all files of one service in one call; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_files
short_description: Write all files of one service in one call
description:
  - Makes a directory contain exactly the given files, each replaced atomically and flushed to
    disk. Files that are not given are removed, so no renamed secret stays.
  - Returns a fingerprint of the result, keyed with a random value that never leaves the host.
    The container gets it as a label, so that a container is replaced after a change of its files,
    even if the run that changed them was killed. A reader of the label cannot use it to test a
    guessed secret.
options:
  directory:
    description: The directory on the host.
    type: path
    required: true
  owner:
    description: Numeric user and group that owns everything, as C(uid:gid).
    type: str
    required: true
  mode:
    description: Mode of the files, in octal.
    type: str
    required: true
  modes:
    description: File name and mode, for files with another mode.
    type: dict
    default: {}
  directory_mode:
    description: Mode of the directories, in octal.
    type: str
    required: true
  files:
    description: Relative path and content.
    type: dict
    default: {}
  secrets:
    description: File name and content, kept out of results and logs.
    type: dict
    default: {}
  copies:
    description: File name, and the path on the host to copy its content from.
    type: dict
    default: {}
  fingerprint_key:
    description:
      - File on the host with the random key; made when it is missing.
      - Without it there is no fingerprint.
    type: path
  validate:
    description:
      - Command that checks the files before they replace the present ones.
      - C(%s) stands for their staged directory.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Configuration of the service
  service_files:
    directory: /etc/airlift/services/prometheus
    owner: "0:0"
    mode: "0444"
    directory_mode: "0755"
    fingerprint_key: /etc/airlift/.fingerprint-key
    files:
      prometheus.yml: "{{ lookup('ansible.builtin.template', 'prometheus.yml.j2') }}"
"""

RETURN = r"""
fingerprint:
  description: Changes when, and only when, a file, its mode or its owner changes.
  returned: when there is a fingerprint_key
  type: str
changed_files:
  description: Files that were written or removed.
  returned: always
  type: list
  elements: str
"""

import os  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.service_files import run  # noqa: E402


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "mode": {"type": "str", "required": True},
            "modes": {"type": "dict", "default": {}},
            "directory_mode": {"type": "str", "required": True},
            "files": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "copies": {"type": "dict", "default": {}},
            "fingerprint_key": {"type": "path", "no_log": False},
            "validate": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    # Modes of parent directories must not depend on the umask of sudo.
    os.umask(0o022)
    try:
        module.exit_json(**run(module))
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
