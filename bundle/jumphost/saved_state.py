"""What only this jump host has, and cannot be made again; and its form in a file.

The form is a compressed tar, so that `ansible-vault decrypt` and `tar` restore it by hand. Releases
and blobs are not in it: they come again with their bundles. Everything is read into memory, because
authorities, inventories and records are small.
"""

from __future__ import annotations

import gzip
import io
import json
import socket
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bundle.core.accounts import group_name, user_name
from bundle.core.failures import doing
from bundle.core.files import UNFINISHED, read_file
from bundle.core.text import size
from bundle.errors import AirliftError, Kind
from bundle.jumphost.store import Home, now

FORMAT = 1
ABOUT = "state.json"
#: Where the parts of a jump host lie in the file. The order is that of a restore.
TRUST, ACCEPTED, CUSTODY, SITES = "trust", "accepted", "custody", "sites"
#: What Airlift itself keeps beside a site's inventory.
OWN = ".airlift"
#: Files in it that the next run makes again. They are neither saved nor missed.
REPORTS = ("preflight.json", "status.json", "keys.turn", "deploy.lock")
#: What a restore has not brought to its place yet, and what it replaced: beside the place. Ansible
#: reads no hidden file. Neither belongs to a state.
RESTORING, REPLACED = ".restoring", ".replaced"
#: A larger file is no state; and the most that a file of a state may unpack to.
LARGEST, MOST = 16 << 20, 256 << 20
_NO_STATE = "move it out of the site's folder, then run the same command again"


class Item(NamedTuple):
    """A file, directory or symbolic link, with its owner and mode."""

    path: str
    kind: bytes
    mode: int
    data: bytes = b""
    link: str = ""
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    time: int = 0

    @property
    def content(self) -> tuple[bytes, bytes, str]:
        """Return what makes two items the same, whoever owns them."""
        return self.kind, self.data, self.link


class State(NamedTuple):
    """Everything of a saved state, by path in the file, and what is known about it."""

    about: dict[str, Any]
    items: Mapping[str, Item]

    def below(self, top: str) -> dict[str, Item]:
        """Return the items of a directory by their path in it; the directory itself is `''`."""
        return {
            path[len(top) + 1 :]: item
            for path, item in self.items.items()
            if path == top or path.startswith(f"{top}/")
        }

    @property
    def sites(self) -> list[str]:
        """Return the names of the sites in it."""
        return sorted({path.split("/")[1] for path in self.items if path.startswith(f"{SITES}/")})


def collect(home: Home, *, inventories: bool) -> State:
    """Read the state of a jump host; with `inventories`, each site's whole folder.

    Raises:
        AirliftError: there is none, or it changed meanwhile.
    """
    before = _look(home, inventories=inventories)
    if not before:
        raise AirliftError(
            Kind.HOME,
            "there is nothing to save: no site, and no release was accepted here",
            where=str(home.root),
            fix="name Airlift's directory with --home",
        )
    items = {name: read_item(name, path) for name, path in before.items()}
    if _marks(before) != _marks(_look(home, inventories=inventories)):
        raise AirliftError(
            Kind.LOCKED,
            "the state changed while it was read, so nothing was saved",
            where=str(home.root),
            fix="wait until no playbook or import is in progress, then run the same command again",
        )
    current = home.current.readlink().name if home.current.is_symlink() else ""
    about = {
        "format": FORMAT,
        "saved": now(),
        "host": socket.gethostname(),
        "home": str(home.root),
        "inventories": inventories,
        "current": current,
        "releases": [
            {"version": one.version, "serial": one.serial}
            for one in home.accepted_releases()
            if home.release(one.version).is_dir()
        ],
        "not_saved": [str(path) for path in _beside_sites(home)],
    }
    return State(about, items)


def _look(home: Home, *, inventories: bool) -> dict[str, Path]:
    """Return what is to be saved: its name in the file, and its path."""
    found: dict[str, Path] = {}
    for path in sorted(home.root.glob("*.custody")):
        found[f"{CUSTODY}/{path.name}"] = path
    tops = [(TRUST, home.trust), (ACCEPTED, home.accepted)]
    for site in _sites(home):
        name = f"{SITES}/{site.name}"
        # A site's folder may be a link to a working tree.
        found[name] = site.resolve()
        tops.append((name, site) if inventories else (f"{name}/{OWN}", site / OWN))
    for name, top in tops:
        if top.is_dir():
            found[name] = top.resolve()
            found |= {f"{name}/{path.relative_to(top)}": path for path in walk(top)}
    return found if any(not path.is_dir() for path in found.values()) else {}


def _sites(home: Home) -> list[Path]:
    if not home.sites.is_dir():
        return []
    return sorted(
        path
        for path in home.sites.iterdir()
        if path.is_dir() and not path.name.startswith(".") and any(path.iterdir())
    )


def _beside_sites(home: Home) -> list[Path]:
    """Return the files beside the sites, such as the password of a vault, which are not saved."""
    if not home.sites.is_dir():
        return []
    return sorted(path for path in home.sites.iterdir() if not path.is_dir())


def walk(top: Path) -> Iterator[Path]:
    """Yield what is saved of a directory: no reports, and nothing but files, directories, links."""
    with doing("list", top):
        for path in sorted(top.iterdir()):
            if path.name in (RESTORING, REPLACED):
                continue
            kept = path.suffix != UNFINISHED and not (
                path.parent.name == OWN and path.name in REPORTS
            )
            mode = path.lstat().st_mode
            if kept and (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
                yield path
            if stat.S_ISDIR(mode):
                yield from walk(path)


def _marks(found: Mapping[str, Path]) -> dict[str, tuple[int, int, int]]:
    status = {name: path.lstat() for name, path in found.items()}
    return {name: (one.st_ino, one.st_size, one.st_mtime_ns) for name, one in status.items()}


def read_item(name: str, path: Path) -> Item:
    """Read a file, directory or link as a part of a state."""
    status = path.lstat()
    data, link, kind = b"", "", tarfile.DIRTYPE
    if stat.S_ISLNK(status.st_mode):
        kind, link = tarfile.SYMTYPE, str(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        kind = tarfile.REGTYPE
        if status.st_size > LARGEST:
            raise AirliftError(
                Kind.FILE,
                f"{path.name} has {size(status.st_size)}, too much for a part of the state",
                where=str(path),
                fix=_NO_STATE,
            )
        with doing("read", path):
            data = read_file(path, LARGEST)
    return Item(
        *(name, kind, stat.S_IMODE(status.st_mode), data, link, status.st_uid, status.st_gid),
        *(user_name(status.st_uid), group_name(status.st_gid), int(status.st_mtime)),
    )


def pack(state: State) -> bytes:
    """Return a state as a compressed tar."""
    about = json.dumps(state.about, indent=1, sort_keys=True).encode() + b"\n"
    out = io.BytesIO()
    # The compressed bytes would else hold the time, and two would differ.
    with (
        gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for item in (Item(ABOUT, tarfile.REGTYPE, 0o600, about), *state.items.values()):
            member = tarfile.TarInfo(item.path)
            member.type, member.mode, member.linkname = item.kind, item.mode, item.link
            member.uid, member.gid, member.uname, member.gname = item[5:9]
            member.mtime, member.size = item.time, len(item.data)
            tar.addfile(member, io.BytesIO(item.data))
    return out.getvalue()


def unpack(raw: bytes, where: Path) -> State:
    """Read such a tar; refuse what `pack` would not write."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as zipped:
            plain = zipped.read(MOST + 1)
        if len(plain) > MOST:
            message = f"it unpacks to more than {size(MOST)}"
            raise ValueError(message)
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            items = {member.name: _item(tar, member) for member in tar}
        about = json.loads(items.pop(ABOUT).data)
        if about["format"] != FORMAT:
            message = f"its format is {about['format']!r}, this release reads {FORMAT}"
            raise ValueError(message)
        state = State(about, dict(sorted(items.items(), key=lambda one: one[0])))
        _check(state)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _unreadable(str(error), where) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(str(error), where) from error
    return state


def _item(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Item:
    if member.type not in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE):
        message = f"{member.name} is neither a file, a directory nor a link"
        raise ValueError(message)
    stream = tar.extractfile(member) if member.isreg() else None
    data = stream.read() if stream else b""
    return Item(
        *(member.name, member.type, member.mode & 0o7777, data, member.linkname),
        *(member.uid, member.gid),
        user=member.uname,
        group=member.gname,
        time=int(member.mtime),
    )


def _check(state: State) -> None:
    """Refuse names that lead out of the state, and files below anything but a directory."""
    for name in state.items:
        path = PurePosixPath(name)
        top = path.parts[0] if path.parts else ""
        odd = str(path) != name or path.is_absolute() or ".." in path.parts or "\0" in name
        if odd or top not in (TRUST, ACCEPTED, CUSTODY, SITES) or name == SITES:
            message = f"{name!r} is no part of a state"
            raise ValueError(message)
        parent = state.items.get(str(path.parent))
        free = str(path.parent) in (SITES, CUSTODY, ".")
        if not free and (parent is None or parent.kind != tarfile.DIRTYPE):
            message = f"{name!r} is below no directory"
            raise ValueError(message)
    keys = {"saved": str, "host": str, "home": str, "inventories": bool, "current": str}
    for key, kind in {**keys, "releases": list, "not_saved": list}.items():
        if not isinstance(state.about[key], kind):
            message = f"{key!r} is wrong"
            raise TypeError(message)


def _unreadable(why: str, where: Path) -> AirliftError:
    return AirliftError(
        Kind.STATE,
        f"the passphrase fits, but the content is not a saved state: {why}",
        where=str(where),
        fix="use the release that saved it, or a newer one",
    )
