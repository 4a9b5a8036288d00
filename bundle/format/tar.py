"""The tar around the members: its one allowed form is written and read here.

Path and size determine every header, so the reader only compares headers. It interprets one only to
explain a refusal.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn, Protocol

from bundle.core.events import Searching
from bundle.core.files import open_regular
from bundle.errors import COPY_AGAIN, AirliftError, Kind

BLOCK = 512
# ustar's size field has eleven octal digits.
MAX_MEMBER = 0o77777777777
END = bytes(2 * BLOCK)
MAX_SIGNATURE = 1 << 16
# 1980-01-01: a real date has no use here, and GNU tar warns about 1970.
MTIME = 315532800

# The fixed fields of a header and their sum: a regular file whose owner and group are 0.
_MODE = b"0000644\0" + b"0000000\0" * 2
_DATE = f"{MTIME:011o}\0".encode()
_MAGIC = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2
_SUM = sum(_MODE + _DATE + b" " * 8 + _MAGIC)

_TYPES = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a character device",
    "4": "a block device",
    "5": "a directory",
    "6": "a named pipe",
    "g": "a pax header for all that follows",
    "x": "a pax header, which can change names and sizes",
    "X": "a pax header, which can change names and sizes",
    "K": "a GNU long link name",
    "L": "a GNU long name",
    "S": "a sparse file",
    "M": "a part of a file from another volume",
    "V": "a volume label",
}


class Listed(Protocol):
    """A member, as far as the archive needs it."""

    @property
    def path(self) -> str:
        """Return its name in the archive."""

    @property
    def size(self) -> int:
        """Return its size in bytes."""


class Source:
    """A bundle file, read at given offsets; safe to share between threads."""

    #: Whether it is one file; a bundle in parts is not.
    whole = True

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Without a limit: the manifest says how much of it is read.
            self._file = open_regular(path, None, links=True)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EISDIR):
                raise AirliftError(
                    Kind.UNREADABLE,
                    "the bundle is not a regular file",
                    where=str(path),
                    fix="name the file airlift-VERSION-amd64.tar itself",
                ) from error
            raise AirliftError(
                Kind.UNREADABLE,
                f"cannot open the bundle: {error.strerror}",
                where=str(path),
                fix="check the path, and that the drive is mounted",
            ) from error
        self._fd = self._file.fileno()
        self.size = os.fstat(self._fd).st_size

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill the view with one system call; return the number of bytes, 0 at the end."""
        try:
            count = os.preadv(self._fd, [view], offset)
        except OSError as error:
            raise self._gone(f"cannot be read at byte {offset}: {error.strerror}") from error
        if count == 0 and view and offset < self.size:
            raise self._gone(f"ends at byte {offset} now, it had {self.size} bytes")
        return count

    def _gone(self, what: str) -> AirliftError:
        return AirliftError(
            Kind.UNREADABLE,
            f"{self.path.name} {what}; was the drive removed?",
            where=str(self.path),
            fix="connect the drive again and run the same command, which continues; if it fails "
            "there again, the drive is failing: copy the bundle to another one",
        )

    def forget_cache(self) -> None:
        """Make the next read come from the medium, not from Linux's cache."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def blame(self, error: AirliftError, searching: Searching) -> AirliftError:
        """Return an error that explains this one better, if the source can."""
        return error

    def read(self, offset: int, size: int) -> bytes:
        """Read this number of bytes, or fewer at the end of the file."""
        buffer = bytearray(size)
        view = memoryview(buffer)
        done = 0
        while done < size:
            count = self.readinto(offset + done, view[done:])
            if count == 0:
                break
            done += count
        return bytes(view[:done])


class Preamble(NamedTuple):
    """The members that are read before anything is trusted."""

    manifest: bytes
    signatures: tuple[bytes, ...]
    end: int


def split_name(path: str) -> tuple[str, str] | None:
    """Split a path into ustar's prefix and name, with the shortest possible prefix."""
    if len(path) <= 100:
        return "", path
    cut = path.find("/", len(path) - 101)
    if cut == -1 or cut > 155 or cut == len(path) - 1:
        return None
    return path[:cut], path[cut + 1 :]


def header(path: str, size: int) -> bytes:
    """Return the only header that a member of this name and size may have."""
    names = split_name(path)
    if names is None or not 0 <= size <= MAX_MEMBER:
        message = f"{path!r} of {size} bytes cannot be written as ustar"
        raise ValueError(message)
    prefix, name = (text.encode("ascii") for text in names)
    octal = b"%011o\0" % size
    # Sum only the variable fields: a verification makes a thousand of these.
    checksum = b"%06o\0 " % (_SUM + sum(name) + sum(octal) + sum(prefix))
    start = name.ljust(100, b"\0") + _MODE + octal + _DATE
    return start + checksum + _MAGIC + prefix.ljust(155, b"\0") + bytes(12)


def padding(size: int) -> int:
    """Return the number of zero bytes between a member's data and the next header."""
    return -size % BLOCK


def total_size(sizes: Iterable[tuple[str, int]]) -> int:
    """Return the length of an archive with these members."""
    return sum(BLOCK + size + padding(size) for _, size in sizes) + len(END)


def read_preamble(
    source: Source,
    *,
    manifest: str,
    signature: Callable[[int], str],
    limit: int,
    signatures: int,
    next_member: str,
) -> Preamble:
    """Read the manifest and its signatures, which come first; read nothing else."""
    path, size = _parse(source.read(0, BLOCK)) or ("", 0)
    if path != manifest:
        raise AirliftError(
            Kind.UNREADABLE,
            f"this is not an Airlift bundle: it does not begin with {manifest}",
            where=str(source.path),
            fix="name the file airlift-VERSION-amd64.tar itself; if this is that file, "
            + COPY_AGAIN,
        )
    body, offset = _small_member(source, 0, manifest, size, limit)
    found: list[bytes] = []
    while len(found) < signatures:
        wanted = signature(len(found) + 1)
        parsed = _parse(source.read(offset, BLOCK))
        if parsed is None and found:
            # Not "too few signers", because a damaged signature may follow.
            _explain(source, offset, f"{wanted} or {next_member}", None)
        if parsed is None or parsed[0] != wanted:
            break
        data, offset = _small_member(source, offset, wanted, parsed[1], MAX_SIGNATURE)
        found.append(data)
    if not found:
        parsed = _parse(source.read(offset, BLOCK))
        if parsed is not None and parsed[0] == next_member:
            raise AirliftError(
                Kind.UNSIGNED,
                f"the bundle is not signed: no {signature(1)} follows {manifest}",
                where=str(source.path),
                fix="use only a bundle that the vendor signed",
            )
        _explain(source, offset, signature(1), None)
    return Preamble(body, tuple(found), offset)


def locate(source: Source, members: Sequence[Listed], offset: int) -> list[int]:
    """Check every header, gap and the end; return where each member's data begins.

    Only headers are read. The data are hashed later, each byte once.
    """
    offsets: list[int] = []
    gap = 0
    for index, member in enumerate(members):
        found = source.read(offset - gap, gap + BLOCK)
        if found != bytes(gap) + header(member.path, member.size):
            if any(found[:gap]):
                _damaged(source, offset - gap, f"the gap before {member.path} is not empty")
            around = members[:index], members[index:]
            _explain(source, offset, member.path, member.size, around)
        offset += BLOCK
        offsets.append(offset)
        gap = padding(member.size)
        offset += member.size + gap
        if offset > source.size:
            _cut_short(source, f"the file ends inside {member.path}")
    tail = source.read(offset - gap, gap + len(END))
    if any(tail[:gap]):
        _damaged(source, offset - gap, "the gap after the last member is not empty")
    if any(tail[gap : gap + BLOCK]):
        _explain(source, offset, None, None, (members, ()))
    if any(tail[gap:]):
        _damaged(source, offset + BLOCK, "its end mark is not empty")
    if len(tail) < gap + len(END):
        _cut_short(source, "the end mark of the archive is missing")
    if source.size != offset + len(END):
        extra = source.size - offset - len(END)
        raise AirliftError(
            Kind.STRUCTURE,
            f"{extra} bytes follow the end of the archive",
            where=f"{source.path}, byte {offset + len(END)}",
            fix=COPY_AGAIN,
        )
    return offsets


def _small_member(
    source: Source, offset: int, name: str, size: int, limit: int
) -> tuple[bytes, int]:
    if not 0 <= size <= limit:
        raise AirliftError(
            Kind.STRUCTURE,
            f"{name} claims {size} bytes{f', more than the {limit} allowed' if size > 0 else ''}",
            where=f"{source.path}, byte {offset}",
            fix=COPY_AGAIN,
        )
    if source.read(offset, BLOCK) != header(name, size):
        _explain(source, offset, name, size)
    gap = padding(size)
    data = source.read(offset + BLOCK, size + gap)
    if len(data) < size + gap:
        _cut_short(source, f"the file ends inside {name}")
    if any(data[size:]):
        _damaged(source, offset + BLOCK + size, f"the gap after {name} is not empty")
    return data[:size], offset + BLOCK + size + gap


def _parse(block: bytes) -> tuple[str, int] | None:
    """Return name and size of any tar header with a valid checksum, or None."""
    if len(block) < BLOCK:
        return None
    try:
        size = int(block[124:136].rstrip(b"\0 ") or b"0", 8)
        stored = int(block[148:156].rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        return None
    if sum(block[:148]) + 8 * 32 + sum(block[156:]) != stored:
        return None
    name = block[:100].partition(b"\0")[0].decode("ascii", "backslashreplace")
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].partition(b"\0")[0].decode("ascii", "backslashreplace")
        name = f"{prefix}/{name}" if prefix else name
    return name, size


def _explain(
    source: Source,
    offset: int,
    wanted: str | None,
    size: int | None,
    around: tuple[Sequence[Listed], Sequence[Listed]] = ((), ()),
) -> NoReturn:
    """Explain in one sentence why the header at this place is refused."""
    before, after = around
    block = source.read(offset, BLOCK)
    if len(block) < BLOCK or not any(block):
        _cut_short(source, f"the archive ends before {wanted}")
    parsed = _parse(block)
    if parsed is None:
        _damaged(source, offset, f"the header of {wanted or 'what follows the last member'}")
    name, found_size = parsed
    kind = chr(block[156])
    shown = repr(name)
    if kind not in "0\0":
        what = f"{shown} is {_TYPES.get(kind, f'of the unknown type {kind!r}')}, not a regular file"
    elif name.startswith("/"):
        what = f"{shown} is an absolute path"
    elif ".." in name.split("/"):
        what = f"{shown} leads out of its directory"
    elif name == wanted and found_size != size:
        what = f"{shown} has {found_size} bytes in the archive, {size} in the manifest"
    elif name == wanted:
        what = f"{shown} has a mode, owner, date or form that a bundle's member cannot have"
    elif any(member.path == name for member in before):
        what = f"{shown} is in the archive twice"
    elif any(member.path == name for member in after):
        what = f"{shown} is not in its place: {wanted!r} belongs there"
    else:
        what = f"{shown} is not listed in the manifest"
    raise AirliftError(
        Kind.STRUCTURE,
        what,
        where=f"{source.path}, byte {offset}",
        fix="do not use this file; " + COPY_AGAIN,
    )


def _cut_short(source: Source, what: str) -> NoReturn:
    raise AirliftError(
        Kind.CUT_SHORT,
        f"the bundle was cut short: {what}",
        where=f"{source.path}, {source.size} bytes long",
        fix=COPY_AGAIN,
    )


def _damaged(source: Source, offset: int, what: str) -> NoReturn:
    raise AirliftError(
        Kind.ALTERED,
        f"the bundle is damaged: {what}",
        where=f"{source.path}, byte {offset}",
        fix=COPY_AGAIN,
    )


class Writer:
    """Writes members in the one allowed form."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def add(self, path: str, data: bytes) -> None:
        """Append a small member."""
        self._out.write(header(path, len(data)) + data + bytes(padding(len(data))))

    def add_file(self, path: str, source: Path, size: int) -> None:
        """Append a file."""
        self._out.write(header(path, size))
        if self._copy(source, 0) != size:
            raise AirliftError(
                Kind.BUILD_INPUT,
                "a file changed while the bundle was written",
                where=str(source),
                fix="build again, and do not change the tree meanwhile",
            )
        self._out.write(bytes(padding(size)))

    def add_rest(self, source: Path, offset: int) -> None:
        """Append another archive from one of its headers on, with its end mark."""
        self._copy(source, offset)
        self._out.flush()
        os.fsync(self._out.fileno())

    def _copy(self, source: Path, offset: int) -> int:
        """Copy the rest of a file in the kernel; return the number of bytes."""
        self._out.flush()
        with open_regular(source, None, links=True) as stream:
            done = offset
            while count := os.sendfile(self._out.fileno(), stream.fileno(), done, 1 << 30):
                done += count
        return done - offset

    def finish(self) -> None:
        """Write the end mark and flush everything to the disk."""
        self._out.write(END)
        self._out.flush()
        os.fsync(self._out.fileno())
