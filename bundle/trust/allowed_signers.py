"""The list of allowed signers, read strictly before ssh-keygen reads it."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import NamedTuple, NoReturn

from bundle.core.files import read_file
from bundle.errors import AirliftError, Kind

#: People write these lists, so a longer file is refused.
MAX_BYTES = 4 << 20

# The options that a line may have beside identity and key, as OpenSSH 8.8 reads them.
_OPTION = re.compile(r'([a-z-]+)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_DATE = re.compile(r"\d{8}(\d{4}(\d{2})?)?Z?")
_KEY_TYPE = re.compile(r"(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+")
# The length of the fixed part of a KRL's header (OpenSSH's PROTOCOL.krl).
_KRL_FIXED = 36
# One word, in which quoted parts may hold spaces.
_WORD = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+')


class AllowedKey(NamedTuple):
    """One line: a key, and the identities that are allowed to sign with it."""

    identities: tuple[str, ...]
    options: str
    key_type: str
    blob: bytes

    @property
    def valid(self) -> str:
        """Return its dates as in the list, such as `from 20260101 until 20270101`, or ''."""
        dates = {name.lower(): value for name, value in _OPTION.findall(self.options)}
        words = {"valid-after": "from", "valid-before": "until"}
        return " ".join(f"{word} {dates[name]}" for name, word in words.items() if name in dates)


class AllowedSigners(NamedTuple):
    """The whole list, and the exact bytes that were checked."""

    path: Path
    raw: bytes
    keys: tuple[AllowedKey, ...]

    def identities_of(self, blob: bytes) -> tuple[str, ...]:
        """Return every identity that is allowed to sign with this key."""
        names = [name for key in self.keys if key.blob == blob for name in key.identities]
        return tuple(dict.fromkeys(names))

    def validity(self, identity: str, blob: bytes) -> str:
        """Return the dates of an identity's key, of all its lines: each may make it valid."""
        lines = (key for key in self.keys if key.blob == blob and identity in key.identities)
        dates = dict.fromkeys(line.valid for line in lines)
        return " or ".join(each or "without dates" for each in dates) if any(dates) else ""


class Revoked(NamedTuple):
    """Keys that are no longer valid: an OpenSSH KRL, or a plain list of public keys."""

    path: Path
    raw: bytes
    # The keys of a plain list; None for a KRL, which ssh-keygen reads.
    keys: tuple[tuple[str, bytes], ...] | None

    def names(self, blob: bytes) -> bool:
        """Return whether this is a plain list with this key."""
        return blob in (known for _, known in self.keys or ())

    @property
    def for_ssh_keygen(self) -> bytes:
        """Return the list without comments and blanks, which ssh-keygen may read differently."""
        if self.keys is None:
            return self.raw
        lines = (f"{kind} {base64.b64encode(blob).decode()}\n" for kind, blob in self.keys)
        return "".join(lines).encode("ascii")


def fingerprint(blob: bytes) -> str:
    """Return OpenSSH's SHA256 fingerprint of a public key."""
    digest = hashlib.sha256(blob).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _read(path: Path, what: str, fix: str) -> bytes:
    try:
        return read_file(path, MAX_BYTES, links=True)
    except OSError as error:
        raise AirliftError(
            Kind.SIGNERS_FILE,
            f"cannot read the list of {what}: {error.strerror}",
            where=str(path),
            fix=fix,
        ) from error


def load(path: Path) -> AllowedSigners:
    """Read the list; refuse entries that trust more people than they name."""
    fix = "name the vendor's list with --allowed-signers; get it separately from the bundle"
    return parse(path, _read(path, "allowed signers", fix))


def parse(path: Path, raw: bytes) -> AllowedSigners:
    """Read the bytes of a list; errors name `path`."""
    keys: list[AllowedKey] = []
    try:
        # The only ends of lines that ssh-keygen reads.
        lines = raw.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        _refuse(path, 1, "this is not a text file")
    for number, line in enumerate(lines, 1):
        _check_visible(path, number, line)
        if line.strip() and not line.lstrip().startswith("#"):
            keys.append(_parse_line(path, number, line))
    if not keys:
        _refuse(path, max(len(lines) - 1, 1), "it lists no signer")
    return AllowedSigners(path, raw, tuple(keys))


def _check_visible(path: Path, number: int, line: str) -> None:
    """Refuse invisible characters, which two programs may read in two ways."""
    hidden = next((char for char in line if not char.isprintable() and char != "\t"), "")
    if hidden:
        _refuse(path, number, f"it has the invisible character U+{ord(hidden):04X}")


def _parse_line(path: Path, number: int, line: str) -> AllowedKey:
    words = _WORD.findall(line)
    if "".join(words) != "".join(line.split()) and '"' not in line:
        _refuse(path, number, "the line cannot be read")
    if len(words) < 3:
        _refuse(path, number, "a line is: identity, options, key type, key")
    identities = tuple(words[0].strip('"').split(","))
    options = "" if _KEY_TYPE.fullmatch(words[1]) else words[1]
    _check_options(path, number, options)
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
    try:
        blob = base64.b64decode(rest[1], validate=True)
    except ValueError:
        _refuse(path, number, "the key is not base64")
    return AllowedKey(identities, options, rest[0], blob)


def _check_options(path: Path, number: int, options: str) -> None:
    """Refuse options that ssh-keygen does not read, or that trust more people."""
    if "cert-authority" in options.lower():
        _refuse(path, number, "cert-authority is not supported; list each signer's own key")
    found = list(_OPTION.finditer(options))
    if ",".join(match[0] for match in found) != options:
        _refuse(path, number, f"the options {options!r} cannot be read")
    for match in found:
        name, value = match[1].lower(), match[2]
        if name not in ("namespaces", "valid-after", "valid-before"):
            _refuse(path, number, f"the option {name!r} is not known")
        if name != "namespaces" and not _DATE.fullmatch(value):
            # A tab is the one allowed character that is not printable.
            shown = value.replace("\t", " ")
            _refuse(path, number, f'{name}="{shown}" is not a date such as 20271231')


def load_revoked(path: Path) -> Revoked:
    """Read a list of revoked keys; refuse it if any part of it cannot be read."""
    raw = _read(path, "revoked keys", "name the vendor's current list with --revoked")
    if raw.startswith(b"SSHKRL\n\0"):
        _check_krl(path, raw)
        return Revoked(path, raw, None)
    keys: list[tuple[str, bytes]] = []
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines() or [""], 1):
        words = line.split()
        if not raw.strip() or (words and not words[0].startswith("#")):
            keys.append(_revoked_key(path, number, words))
    return Revoked(path, raw, tuple(keys))


def _check_krl(path: Path, raw: bytes) -> None:
    """Refuse a KRL that ends after its header: ssh-keygen accepts it, and it revokes nothing."""
    try:
        # Magic, version, number, date and flags; then two strings, one of them reserved.
        *_, sections = take(raw[_KRL_FIXED:], 2)
    except ValueError:
        sections = b""
    if not sections:
        raise AirliftError(
            Kind.SIGNERS_FILE,
            "the list of revoked keys (KRL) is cut short or empty: it revokes no key",
            where=str(path),
            fix="get the vendor's current list again; if no key is revoked, omit the list",
        )


def _revoked_key(path: Path, number: int, words: list[str]) -> tuple[str, bytes]:
    try:
        kind, blob = words[0], base64.b64decode(words[1], validate=True)
        whole = strings(blob)[0] == kind.encode()
    except (IndexError, ValueError):
        whole = False
    if not whole or not _KEY_TYPE.fullmatch(kind) or "-cert-v01@" in kind:
        raise AirliftError(
            Kind.SIGNERS_FILE,
            "the list of revoked keys is neither an OpenSSH revocation list (KRL) nor a list of "
            "public keys",
            where=f"{path}, line {number}",
            fix="make a KRL: ssh-keygen -k -f revoked.krl old-key.pub; or write a plain list, with "
            "one whole public key per line and no certificates",
        )
    return kind, blob


def strings(data: bytes) -> list[bytes]:
    """Split SSH wire format into its strings.

    Raises:
        ValueError: it ends inside one.
    """
    found: list[bytes] = []
    while data:
        string, data = take(data, 1)
        found.append(string)
    return found


def take(data: bytes, count: int) -> list[bytes]:
    """Return a number of strings of SSH wire format, and the rest.

    Raises:
        ValueError: the data end inside one.
    """
    found: list[bytes] = []
    for _ in range(count):
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 or len(data) < 4 + size:
            message = "the data are too short"
            raise ValueError(message)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return [*found, data]


def _refuse(path: Path, number: int, what: str) -> NoReturn:
    raise AirliftError(
        Kind.SIGNERS_FILE,
        f"the list of allowed signers cannot be used: {what}",
        where=f"{path}, line {number}",
        fix='write one line per signer: NAME namespaces="airlift-bundle" ssh-ed25519 AAAA…',
    )
