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
  directory: {description: The directory on the host., type: path, required: true}
  owner: {type: str, required: true,
    description: "Numeric user and group that owns everything, as C(uid:gid)."}
  mode: {description: "Mode of the files, in octal.", type: str, required: true}
  modes: {description: "File name, and its mode where it is another one.", type: dict, default: {}}
  directory_mode: {description: "Mode of the directories, in octal.", type: str, required: true}
  files: {description: Relative path and content., type: dict, default: {}}
  secrets: {type: dict, default: {},
    description: "File name and content, kept out of results and logs."}
  copies: {type: dict, default: {},
    description: "File name, and the path on the host to copy its content from."}
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

RETURN = r"""
fingerprint: {returned: when there is a fingerprint_key, type: str,
  description: "Changes when, and only when, a file, its mode or its owner changes."}
changed_files: {returned: always, type: list, elements: str,
  description: Files that were written or removed.}
"""

from ansible.module_utils.host_module import answer  # noqa: E402
from ansible.module_utils.service_files import run  # noqa: E402

OPTIONS = {
    "directory": {"type": "path", "required": True},
    **{name: {"required": True} for name in ("owner", "mode", "directory_mode")},
    **{name: {"type": "dict", "default": {}} for name in ("modes", "files", "copies")},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "fingerprint_key": {"type": "path", "no_log": False},
    "validate": {"type": "list", "elements": "str", "default": []},
}

if __name__ == "__main__":
    answer(lambda module: run(module.params, check=module.check_mode), OPTIONS)
