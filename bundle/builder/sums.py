"""SHA256SUMS and its signature, to check a bundle with common tools."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from bundle.core.files import read_file, sha256, write_atomic
from bundle.errors import AirliftError
from bundle.format import tar
from bundle.trust import sshsig

NAME = "SHA256SUMS"
MAX_BYTES = 4 << 20
_LINE = re.compile(r"([0-9a-f]{64})  (airlift-[A-Za-z0-9._-]+)")


def write(folder: Path, name: str, key: Path) -> str:
    """Sign the sum of this file, and again those that the same key has signed before.

    Lines of another key are dropped, because this key must not confirm unknown files. The caller
    must hold the folder's lock, because two writers would each lose the other's line.
    """
    sums = _vouched_for(folder, key) | {name: sha256(folder / name)}
    text = "".join(f"{digest}  {each}\n" for each, digest in sorted(sums.items())).encode()
    signature = sshsig.sign(text, key)
    write_atomic(folder / NAME, text)
    write_atomic(folder / f"{NAME}.sig", signature)
    return sums[name]


def _vouched_for(folder: Path, key: Path) -> dict[str, str]:
    """Return the sums that this key has signed and that are still right."""
    existing, signature = folder / NAME, folder / f"{NAME}.sig"
    if not (existing.is_file() and signature.is_file()):
        return {}
    try:
        raw, signed = read_file(existing, MAX_BYTES), read_file(signature, tar.MAX_SIGNATURE)
    except OSError:
        return {}
    if not _signed_by(raw, signed, key):
        return {}
    lines = (_LINE.fullmatch(line) for line in raw.decode("ascii", "replace").splitlines())
    listed = {line[2]: line[1] for line in lines if line}
    return {
        name: digest
        for name, digest in listed.items()
        if (folder / name).is_file() and sha256(folder / name) == digest
    }


def _signed_by(text: bytes, signature: bytes, key: Path) -> bool:
    words = sshsig.public_key(key).split()
    try:
        # ssh-keygen checks the signature with the key that it names.
        blob = sshsig.parse(signature, f"{NAME}.sig").blob
        sshsig.check_fits(text, signature)
    except AirliftError:
        return False
    return words[-1:] == [base64.b64encode(blob).decode()]
