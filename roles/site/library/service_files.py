#!/usr/bin/python
"""Make a directory contain exactly the given files, each replaced atomically and flushed to disk.

Files that are not given are removed, so no renamed secret stays. It returns the files that were
written or removed, and a fingerprint of the result, keyed with a random value that never leaves the
host. The container gets it as a label, so that a container is replaced after a change of its files,
even if the run that changed them was killed. A reader of the label cannot use it to test a guessed
secret.
"""

from __future__ import annotations

from ansible.module_utils.host_module import answer
from ansible.module_utils.service_files import run

OPTIONS = {
    "directory": {"type": "path", "required": True},
    # The owner is uid:gid; the modes are octal, those of the files and of the directories.
    **{name: {"required": True} for name in ("owner", "mode", "directory_mode")},
    # By file name: another mode, the content, and a path on the host to copy the content from.
    **{name: {"type": "dict", "default": {}} for name in ("modes", "files", "copies")},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    # The file with the random key, made when it is missing; without it there is no fingerprint.
    "fingerprint_key": {"type": "path", "no_log": False},
    # The command that checks the files first; %s stands for their staged directory.
    "validate": {"type": "list", "elements": "str", "default": []},
}

if __name__ == "__main__":
    answer(lambda module: run(module.params, check=module.check_mode), OPTIONS)
