"""Site receipts: signed lists of what a jump host has, which the vendor needs for a delta."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bundle.core import schema as s
from bundle.core.events import Progress
from bundle.core.files import open_regular, read_file, sha256, write_atomic
from bundle.core.output import writes_to
from bundle.errors import AirliftError, Kind
from bundle.format import manifest, tar
from bundle.format.manifest import Manifest, Member
from bundle.format.parts import index_of
from bundle.jumphost import installed
from bundle.jumphost.store import Acceptance, Home, now
from bundle.trust import sshsig
from bundle.trust.sshsig import Signer, Trust

FORMAT = 1
#: A release of some thousand members needs 1 MB.
MAX_BYTES = 256 << 20
NAMESPACE = sshsig.RECEIPT
#: What every receipt begins with.
BEGINNING = b'{\n "created": "'

_SHAPE = s.record(
    format=s.integer(FORMAT, FORMAT),
    product=s.text(manifest.PRODUCT),
    host=s.text(),
    created=s.text(manifest.TIME),
    # Whether every file was hashed; otherwise it only exists in full length.
    hashed=s.boolean(),
    releases=s.array(
        s.record(
            version=s.text(manifest.VERSION),
            serial=s.integer(1, 2**53),
            release_sha256=s.text(manifest.HASH),
            image_source=s.text(manifest.IMAGE_SOURCES),
            architecture=s.text("|".join(manifest.ARCHITECTURES)),
            members=s.array(s.record(**manifest.MEMBER)),
        )
    ),
)


@dataclass(frozen=True)
class Receipt:
    """A receipt that a known site has signed."""

    path: Path
    host: str
    created: str
    signer: Signer
    releases: list[dict[str, Any]]


def take(home: Home, *, contents: bool, progress: Progress) -> tuple[dict[str, Any], list[str]]:
    """Return the files of every accepted release that exist here, and notes on missing ones.

    With `contents` every file is hashed. Otherwise it must exist in full length.
    """
    notes: list[str] = []
    check = _Check(home, contents, progress)
    releases = []
    for record in home.accepted_releases():
        parsed = _manifest_of(home, record, notes)
        if parsed is None:
            continue
        members = [m for m in parsed.contents if manifest.may_be_left_out(m.path)]
        folder = home.release(record.version)
        good = [m for m in members if check(installed.place(home, folder, m), m, notes)]
        releases.append(
            {
                "version": parsed.version,
                "serial": parsed.serial,
                "release_sha256": parsed.release_sha256,
                "image_source": parsed.data["image_source"],
                "architecture": parsed.data["architecture"],
                "members": [{"path": m.path, "size": m.size, "sha256": m.sha256} for m in good],
            }
        )
    if not releases:
        raise AirliftError(
            Kind.HOME,
            "no release was imported here, so there is nothing to list",
            where=str(home.root),
            fix="import a bundle first, or name Airlift's directory with --home",
        )
    receipt = {
        "format": FORMAT,
        "product": manifest.PRODUCT,
        "host": socket.gethostname(),
        "created": now(),
        "hashed": contents,
        "releases": releases,
    }
    return receipt, list(dict.fromkeys(notes))


def write(receipt: dict[str, Any], path: Path, key: Path | None) -> str:
    """Sign with a key of the site; write FILE and FILE.sig; return the line for the vendor.

    Plain `ssh-keygen -Y verify` can check the two. If this is interrupted between them, the
    signature does not fit and is refused.
    """
    if key is None:
        raise AirliftError(
            Kind.SIGNING,
            "no key to sign the receipt with",
            where="--key or AIRLIFT_RECEIPT_KEY",
            fix="make a key of this site: ssh-keygen -t ed25519 -C jump@SITE -f "
            "~/.ssh/airlift_receipt; then: export AIRLIFT_RECEIPT_KEY=~/.ssh/airlift_receipt",
        )
    raw = manifest.encode(receipt)
    signature = sshsig.sign(raw, key, namespace=NAMESPACE)
    line = f'jump@{receipt["host"]} namespaces="{NAMESPACE}" {sshsig.public_key(key)}'
    with writes_to(path, continues=False):
        write_atomic(path, raw)
        write_atomic(signature_of(path), signature)
    return line


def signature_of(path: Path) -> Path:
    """Return the path of a receipt's signature."""
    return path.with_name(path.name + ".sig")


def is_receipt(path: Path) -> bool:
    """Return whether a file is a receipt: a bundle begins with a tar header, or is in parts."""
    if index_of(path) is not None:
        return False
    try:
        with open_regular(path, None, links=True) as stream:
            return stream.read(1) == b"{"
    except OSError:
        return False


def read(path: Path, signers: Path | None) -> Receipt:
    """Read a receipt; check its signature before reading anything in it."""
    if signers is None:
        raise AirliftError(
            Kind.SIGNERS_FILE,
            "no list of signers of receipts",
            where=f"--since {path}",
            fix="add --receipt-signers FILE; ask each site, separately from the receipt, for its "
            f'line: jump@SITE namespaces="{NAMESPACE}" ssh-ed25519 AAAA…',
        )
    raw, signer = _authenticate(path, Trust(signers, namespace=NAMESPACE))
    try:
        data = json.loads(raw)
        found = data.get("format") if isinstance(data, dict) else None
        if isinstance(found, int) and found > FORMAT:
            _refuse(
                path,
                f"it has format {found}, newer than this tool's {FORMAT}",
                fix="build with the release of Airlift that the site has, or a newer one",
            )
        _SHAPE(data, "")
    except (ValueError, RecursionError) as error:
        _refuse(path, f"it is signed, but not in the form of `bundle receipt`: {error}")
    if not data["releases"]:
        _refuse(path, "it names no release")
    return Receipt(path, data["host"], data["created"], signer, data["releases"])


def _authenticate(path: Path, trust: Trust) -> tuple[bytes, Signer]:
    beside = signature_of(path)
    try:
        raw = read_file(path, MAX_BYTES, links=True)
        signature = read_file(beside, tar.MAX_SIGNATURE)
    except OSError as error:
        _refuse(
            path,
            f"{Path(str(error.filename)).name} cannot be read: {error.strerror}",
            kind=Kind.UNSIGNED if str(error.filename) == str(beside) else Kind.BUILD_INPUT,
            fix=f"get both files of the receipt, {path.name} and {beside.name}",
        )
    try:
        verdict = sshsig.verify(raw, [(beside.name, signature)], trust)
    except AirliftError as error:
        what = error.what
        if error.kind is Kind.SIGNERS_FILE:
            raise
        if error.kind is Kind.BAD_SIGNATURE:
            what = "it was altered after it was signed, or the signature is of another file"
        _refuse(
            path,
            what,
            kind=error.kind,
            fix="ask the site, through a separate channel, for a new receipt or its key",
        )
    return raw, verdict.signers[0]


def _manifest_of(home: Home, record: Acceptance, notes: list[str]) -> Manifest | None:
    """Return the manifest of an accepted release; None if it is missing or another one."""
    folder = home.release(record.version)
    try:
        parsed = manifest.parse(installed.read(folder)[0])
    except AirliftError as error:
        gone = not folder.exists()
        notes.append(
            f"release {record.version}: {'its directory is missing' if gone else error.what}"
        )
        return None
    if parsed.release_sha256 != record.release_sha256:
        notes.append(f"release {record.version}: its manifest is not the one that was accepted")
        return None
    return parsed


class _Check:
    """Checks whether a file is here; hashes a file that several releases share once."""

    def __init__(self, home: Home, contents: bool, progress: Progress) -> None:
        self._home = home
        self._contents = contents
        self._progress = progress
        self._hashed: dict[tuple[int, int], str] = {}

    def __call__(self, path: Path, member: Member, notes: list[str]) -> bool:
        for problem in self._problems(path, member):
            notes.append(f"{path} {problem}; the next bundle carries it")
            return False
        return True

    def _problems(self, path: Path, member: Member) -> Iterator[str]:
        try:
            status = path.lstat()
        except OSError as error:
            yield f"is missing ({error.strerror})"
            return
        if path.is_symlink() or status.st_size != member.size:
            yield "is not what was imported"
        elif self._contents:
            inode = status.st_dev, status.st_ino
            if inode not in self._hashed:
                self._hashed[inode] = sha256(path)
                self._progress(member.size)
            if self._hashed[inode] != member.sha256:
                yield "was altered"


def _refuse(path: Path, what: str, *, kind: Kind = Kind.BUILD_INPUT, fix: str = "") -> NoReturn:
    raise AirliftError(
        kind,
        f"the receipt cannot be used: {what}",
        where=f"--since {path}",
        fix=fix or "ask the site for a new one: python -m bundle receipt",
    )
