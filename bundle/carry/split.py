"""Splits a bundle into parts that fit the USB drive's file system.

The index is written last: if it exists, all parts were written, flushed and read again.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from pathlib import Path
from typing import NoReturn

from bundle.core.events import Log, Progress
from bundle.core.files import create, fsync_directory, write_atomic
from bundle.core.output import check_space, filesystem, flush, writes_to
from bundle.errors import AirliftError, Kind
from bundle.format import tar
from bundle.format.parts import (
    FAT_LIMIT,
    MAX_PARTS,
    NAME,
    SUFFIX,
    Index,
    Piece,
    part_name,
    pieces,
    sha256_of,
    signature_of,
)
from bundle.trust import sshsig
from bundle.verify.checks import check_members, opened

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `3900M`: k, M and G are decimal, as on drive labels.

    Raises:
        ValueError: it is not such a text.
    """
    match = re.fullmatch(r"([1-9]\d{0,12})([kMG]?)", text, re.ASCII)
    if match is None:
        message = f"{text!r} is not a size such as 3900M (k, M, G: 1000, 1000000, 1000000000)"
        raise ValueError(message)
    return int(match[1]) * _UNITS[match[2]]


def split(
    path: Path, *, size: int, out: Path, key: Path | None, log: Log, progress: Progress
) -> Index:
    """Write a bundle's parts and their index; sign the index when there is a key.

    Parts without an index, which an interrupted run leaves, are replaced.
    """
    with opened(path, trust=None, home=None) as bundle, writes_to(out):
        _check_name(path, whole=bundle.source.whole)
        verifier = bundle.manifest.members[0].size
        # With its padding, because tar needs whole blocks.
        head = bundle.offsets[0] + verifier + tar.padding(verifier)
        _check_size(size, head, bundle.source.size, out)
        if (out / f"{path.name}{SUFFIX}").exists():
            _refuse_existing(out, path.name)
        out.mkdir(parents=True, exist_ok=True)
        check_space(bundle.source.size, out, "splitting")
        log("verifying the bundle")
        check_members(bundle, progress=progress)
        work = out / f".{path.name}.split"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            log("writing the parts")
            index = _write_parts(bundle.source, path.name, size, work, progress)
            log("reading the parts again")
            _read_again(index, work, progress)
            signature = sshsig.sign(index.encode(), key) if key is not None else None
            _publish(index, signature, work, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return index


def _write_parts(source: tar.Source, name: str, size: int, work: Path, progress: Progress) -> Index:
    whole = hashlib.sha256()
    parts = []
    for number, start in enumerate(range(0, source.size, size), 1):
        wanted = min(size, source.size - start)
        digest = hashlib.sha256()
        with create(work / part_name(name, number)) as stream:
            for piece in pieces(source, start, wanted):
                stream.write(piece)
                digest.update(piece)
                whole.update(piece)
                progress(len(piece))
            flush(stream)
        parts.append(Piece(part_name(name, number), wanted, digest.hexdigest()))
    return Index(Piece(name, source.size, whole.hexdigest()), tuple(parts))


def _read_again(index: Index, work: Path, progress: Progress) -> None:
    """Compare the parts as they are on the medium, not in Linux's cache."""
    for part in index.parts:
        with tar.Source(work / part.name) as source:
            source.forget_cache()
            if sha256_of(source, progress) != part.sha256:
                raise AirliftError(
                    Kind.OUTPUT,
                    f"{part.name} differs from what was written: the drive is failing",
                    where=str(work.parent),
                    fix="use another drive",
                )


def _publish(index: Index, signature: bytes | None, work: Path, out: Path) -> None:
    for old in [*out.glob(f"{index.bundle.name}.part-[0-9][0-9]"), signature_of(out / index.name)]:
        old.unlink(missing_ok=True)
    for part in index.parts:
        (work / part.name).replace(out / part.name)
    if signature is not None:
        write_atomic(signature_of(out / index.name), signature)
    fsync_directory(out)
    write_atomic(out / index.name, index.encode())


def _check_name(path: Path, *, whole: bool) -> None:
    if whole and re.fullmatch(NAME, path.name):
        return
    what = "these are parts already" if not whole else f"{path.name!r} is not a bundle's name"
    raise AirliftError(
        Kind.USAGE,
        what,
        where=str(path),
        fix="name the bundle file, as `build` named it: airlift-VERSION-amd64.tar",
    )


def _check_size(size: int, head: int, total: int, out: Path) -> None:
    if size < head:
        what = f"parts of {size} bytes are too small: the first must hold the verifier"
        fix = f"use --size {-(-head // 1000)}k or more"
    elif -(-total // size) > MAX_PARTS:
        what = f"parts of {size} bytes would be more than {MAX_PARTS} parts"
        fix = f"use --size {-(-total // MAX_PARTS // 1000) + 1}k or more"
    elif size > FAT_LIMIT and filesystem(out) in {"vfat", "msdos"}:
        what = f"a file on this FAT file system can have at most {FAT_LIMIT} bytes"
        fix = "use --size 3900M"
    else:
        return
    raise AirliftError(Kind.USAGE, what, where=f"--size, {out}", fix=fix)


def _refuse_existing(out: Path, name: str) -> NoReturn:
    raise AirliftError(
        Kind.OUTPUT,
        "there are parts of this bundle already, with their index",
        where=str(out / f"{name}{SUFFIX}"),
        fix=f"use them, or: cd {shlex.quote(str(out))} && rm {name}.part-?? {name}{SUFFIX}*; "
        "or name another -o DIR",
    )
