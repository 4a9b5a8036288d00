"""Runs at each start of a release's own Python: its `airlift.pth` says so.

Ansible looks for its settings in the current directory, so a playbook that is called by its full
path from elsewhere would find no roles; and it ends at once in a locale that is not UTF-8 or that
this machine does not have. What the operator sets for Ansible stays.
"""

from __future__ import annotations

import contextlib
import locale
import os
from collections.abc import MutableMapping
from pathlib import Path

CONFIG = "ANSIBLE_CONFIG"
LOCALE = "C.UTF-8"


def is_usable() -> bool:
    """Return whether Ansible takes the locale of the environment."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")
        return (locale.getlocale()[1] or "").lower() in ("utf-8", "utf8")
    except (locale.Error, ValueError):
        return False
    finally:
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, before)


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Name the settings of this release to Ansible, and a locale that it takes."""
    config = Path(__file__).resolve().parents[2] / "ansible.cfg"
    if config.is_file():
        environment.setdefault(CONFIG, str(config))
    if not is_usable():
        environment["LC_ALL"] = LOCALE
