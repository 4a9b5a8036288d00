"""Names of users and groups of this machine."""

from __future__ import annotations

import grp
import pwd


def user_name(number: int) -> str:
    """Return the name of a user; empty when the number has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return ""


def group_name(number: int) -> str:
    """Return the name of a group; empty when the number has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""
