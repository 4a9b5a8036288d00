#!/usr/bin/python
"""Make a directory contain exactly the given files, each replaced atomically and flushed to disk.

Files that are not given are removed, so no renamed secret stays. It returns the files that were
written or removed.
"""

from __future__ import annotations

from ansible.module_utils.host_module import answer
from ansible.module_utils.service_files import run

OPTIONS = {
    "directory": {"type": "path", "required": True},
    # The owner is uid:gid; the modes are octal, those of the files and of the directories.
    **{name: {"required": True} for name in ("owner", "mode", "directory_mode")},
    # By file name: another mode, and the content.
    **{name: {"type": "dict", "default": {}} for name in ("modes", "files")},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
}

if __name__ == "__main__":
    answer(lambda module: run(module.params, check=module.check_mode), OPTIONS)
