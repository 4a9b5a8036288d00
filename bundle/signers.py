"""The list of allowed signers, read strictly before ssh-keygen reads it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bundle.errors import AirliftError, Kind

_KEY_TYPE = re.compile(r"(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+")
# One word, in which quoted parts may hold spaces.
_WORD = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+')


@dataclass(frozen=True)
class AllowedKey:
    """One line: who may sign with which key."""

    identities: tuple[str, ...]
    options: str
    key_type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """The key's fingerprint as OpenSSH prints it."""
        return fingerprint(self.blob)


@dataclass(frozen=True)
class AllowedSigners:
    """The whole list, and the exact bytes that were checked."""

    path: Path
    raw: bytes
    keys: tuple[AllowedKey, ...]

    def identities_of(self, blob: bytes) -> tuple[str, ...]:
        """Everybody who may sign with this key."""
        names = [name for key in self.keys if key.blob == blob for name in key.identities]
        return tuple(dict.fromkeys(names))


def fingerprint(blob: bytes) -> str:
    """OpenSSH's SHA256 fingerprint of a public key."""
    digest = hashlib.sha256(blob).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def load(path: Path) -> AllowedSigners:
    """Read the list; refuse what would trust more people than it names."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise AirliftError(
            Kind.SIGNERS_FILE,
            f"the list of allowed signers cannot be read: {error.strerror}",
            where=str(path),
            fix="name it with --allowed-signers; it comes from the vendor, not on the stick",
        ) from error
    keys: list[AllowedKey] = []
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        _refuse(path, 1, "this is not a text file")
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            keys.append(_parse_line(path, number, line))
    if not keys:
        _refuse(path, max(len(lines), 1), "the list names nobody")
    return AllowedSigners(path, raw, tuple(keys))


def _parse_line(path: Path, number: int, line: str) -> AllowedKey:
    words = _WORD.findall(line)
    if "".join(words) != "".join(line.split()) and '"' not in line:
        _refuse(path, number, "the line cannot be read")
    if len(words) < 3:
        _refuse(path, number, "a line is: identity, options, key type, key")
    identities = tuple(words[0].strip('"').split(","))
    options = "" if _KEY_TYPE.fullmatch(words[1]) else words[1]
    rest = words[2:] if options else words[1:]
    if len(rest) < 2 or not _KEY_TYPE.fullmatch(rest[0]):
        _refuse(path, number, "a line is: identity, options, key type, key")
    for name in identities:
        if not name or any(char in name for char in "*?!"):
            _refuse(
                path,
                number,
                f"the identity {name!r} is a pattern; every signer must be named",
            )
    if "cert-authority" in options.lower():
        _refuse(path, number, "cert-authority is not supported; list each signer's own key")
    try:
        blob = base64.b64decode(rest[1], validate=True)
    except binascii.Error:
        _refuse(path, number, "the key is not base64")
    return AllowedKey(identities, options, rest[0], blob)


def _refuse(path: Path, number: int, what: str) -> NoReturn:
    raise AirliftError(
        Kind.SIGNERS_FILE,
        f"the list of allowed signers cannot be used: {what}",
        where=f"{path}, line {number}",
        fix='one line a signer: NAME namespaces="airlift-bundle" ssh-ed25519 AAAA…',
    )
