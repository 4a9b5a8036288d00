"""SHA256SUMS and its signature, for whoever wants to check a bundle the plain way."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from bundle import sshsig
from bundle.store import write_atomic

NAME = "SHA256SUMS"
_LINE = re.compile(r"[0-9a-f]{64}  (airlift-[A-Za-z0-9._-]+)")


def write(folder: Path, name: str, key: Path) -> str:
    """Sign the sums of this file and of those listed before that are still there.

    All are hashed again: a signature says only what was seen to be true.
    """
    names = {name}
    existing = folder / NAME
    if existing.is_file():
        for line in existing.read_text(encoding="utf-8").splitlines():
            if (match := _LINE.fullmatch(line)) and (folder / match[1]).is_file():
                names.add(match[1])
    sums = {each: sha256(folder / each) for each in sorted(names)}
    text = "".join(f"{digest}  {each}\n" for each, digest in sums.items()).encode()
    signature = sshsig.sign(text, key)
    write_atomic(existing, text)
    write_atomic(folder / f"{NAME}.sig", signature)
    return sums[name]


def sha256(path: Path) -> str:
    """The hash of a whole file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """The hash of some bytes."""
    return hashlib.sha256(data).hexdigest()
