"""Owners and modes of a saved state, on a jump host that may have other users."""

from __future__ import annotations

import grp
import os
import pwd
import tarfile
from collections.abc import Iterable
from pathlib import Path

from bundle.jumphost.saved_state import Item


class Owners:
    """Gives files their owners and modes; remembers which owners it could not give."""

    def __init__(self, root: Path) -> None:
        self._root = os.geteuid() == 0
        self._mine = {*os.getgroups(), os.getegid()}
        #: A user that does not exist here is replaced by the owner of Airlift's directory.
        self._instead = root.stat()
        self._missed: set[str] = set()

    @property
    def missed(self) -> list[str]:
        """Return the owners, as `user:group`, that files could not get."""
        return sorted(self._missed)

    def give(self, path: Path, item: Item) -> None:
        """Set owner, mode and time of a file as they were saved."""
        uid, gid = self._user(item), self._group(item)
        status = path.lstat()
        if self._root or gid in self._mine:
            os.chown(path, uid if self._root else -1, gid, follow_symlinks=False)
            status = path.lstat()
        if (status.st_uid, status.st_gid) != (uid, gid) or not self._known(item):
            self._missed.add(f"{item.user or item.uid}:{item.group or item.gid}")
        if item.kind != tarfile.SYMTYPE:
            # A change of owner takes bits away, so the mode comes after it.
            path.chmod(item.mode)
            os.utime(path, (item.time, item.time))

    def like_their_folders(self, folders: Iterable[Path], files: Iterable[Path]) -> None:
        """Give what root wrote to the owner of its folder, who must be able to replace it."""
        if not self._root:
            return
        for path in [*(one for top in folders for one in top.rglob("*")), *files]:
            above = path.parent.stat()
            os.chown(path, above.st_uid, above.st_gid, follow_symlinks=False)

    def _known(self, item: Item) -> bool:
        return _number(item.user, item.uid) is not None and _id(item.group, item.gid) is not None

    def _user(self, item: Item) -> int:
        found = _number(item.user, item.uid)
        return self._instead.st_uid if found is None else found

    def _group(self, item: Item) -> int:
        found = _id(item.group, item.gid)
        return self._instead.st_gid if found is None else found


def _number(user: str, uid: int) -> int | None:
    """Return the number of a user here; a user without a name keeps the number."""
    try:
        return pwd.getpwnam(user).pw_uid if user else uid
    except KeyError:
        return None


def _id(group: str, gid: int) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid if group else gid
    except KeyError:
        return None
