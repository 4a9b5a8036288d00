"""Signatures by ssh-keygen: make them, and find out who made one.

ssh-keygen decides whether a signature is valid. Airlift parses signatures only to count different
keys, to keep malformed files away from ssh-keygen, and to report problems in one sentence.
"""

from __future__ import annotations

import base64
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from bundle.core.files import read_file
from bundle.errors import AirliftError, Kind
from bundle.trust import sshkeygen
from bundle.trust.allowed_signers import (
    AllowedSigners,
    Revoked,
    fingerprint,
    load_revoked,
    strings,
    take,
)
from bundle.trust.allowed_signers import load as load_signers

NAMESPACE = "airlift-bundle"
CUSTODY = "airlift-custody"
RECEIPT = "airlift-receipt"
MAX_SIGNATURES = 8
#: A private key of 16,384 bits has 13 kB.
MAX_KEY = 1 << 16
_KEY_TYPE = re.compile(r"[a-z0-9@.-]{1,64}")
_BEGIN = "-----BEGIN SSH SIGNATURE-----"
_END = "-----END SSH SIGNATURE-----"


class Trust(NamedTuple):
    """The signers to accept."""

    allowed_signers: Path
    identities: tuple[str, ...] = ()
    # Lists of revoked keys; a key in any of them is not valid.
    revoked: tuple[Path, ...] = ()
    required: int = 1
    # The time of the check in seconds since 1970; None means now. Set for what was accepted before.
    at: float | None = None
    # The purpose that the signature must have been made for.
    namespace: str = NAMESPACE
    # Fingerprints of keys that an operator restores; `bundle.jumphost.kept_trust` uses them.
    restored: frozenset[str] = frozenset()


class Signer(NamedTuple):
    """A signer whose valid signature was found."""

    identity: str
    fingerprint: str
    key_type: str
    # The key's dates as in the list, such as `from 20260101 until 20270101`.
    valid: str = ""

    def __str__(self) -> str:
        return f"{self.identity} with {self.key_type} key {self.fingerprint}"

    def as_dict(self) -> dict[str, str]:
        """Return the signer for `--json` and the acceptance record."""
        return {
            "identity": self.identity,
            "fingerprint": self.fingerprint,
            "key_type": self.key_type,
            "valid": self.valid,
        }


class Verdict(NamedTuple):
    """Who signed, and which signatures were ignored, with the reason."""

    signers: tuple[Signer, ...]
    ignored: tuple[str, ...]
    # The exact lists that decided it.
    allowed_signers: bytes
    revoked: tuple[Revoked, ...]


class Signature(NamedTuple):
    """What a signature file states; nothing of it is verified."""

    raw: bytes
    name: str
    key_type: str
    blob: bytes
    namespace: str

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the key that the signature names."""
        return fingerprint(self.blob)


def parse(raw: bytes, name: str) -> Signature:
    """Read one armoured SSHSIG; refuse a second one, or anything around it."""
    try:
        return _parse(raw, name)
    except (ValueError, IndexError):
        _unsigned(name, "it is not an OpenSSH signature")


def _parse(raw: bytes, name: str) -> Signature:
    lines = raw.decode("ascii").split("\n")
    if lines[0] != _BEGIN or lines[-2:] != [_END, ""]:
        _unsigned(name, "it is not one OpenSSH signature")
    body = base64.b64decode("".join(lines[1:-2]), validate=True)
    if armour(body) != raw:
        _unsigned(name, "it is not in the form that ssh-keygen writes")
    if body[:6] != b"SSHSIG" or body[6:10] != b"\0\0\0\1":
        _unsigned(name, "it is not a signature of version 1")
    fields = strings(body[10:])
    blob, namespace, _reserved, _hash, _signature = fields
    key_type = strings(blob)[0].decode("ascii")
    if not _KEY_TYPE.fullmatch(key_type):  # it is printed
        _unsigned(name, "OpenSSH has no such type of key")
    return Signature(raw, name, key_type, blob, namespace.decode("ascii"))


def armour(body: bytes) -> bytes:
    """Return the text form in which ssh-keygen writes a signature."""
    text = base64.b64encode(body).decode()
    lines = [text[i : i + 70] for i in range(0, len(text), 70)]
    return "\n".join([_BEGIN, *lines, _END, ""]).encode()


def sign(message: bytes, key: Path, *, namespace: str = NAMESPACE) -> bytes:
    """Sign with a private key, or through ssh-agent when the key is a `.pub`."""
    if not key.is_file():
        raise AirliftError(
            Kind.SIGNING,
            "the signing key does not exist",
            where=str(key),
            fix=MAKE_A_KEY,
        )
    result = sshkeygen.run(["-Y", "sign", "-q", "-f", str(key), "-n", namespace], message)
    if result.returncode != 0:
        reason = sshkeygen.first_line(result.stderr)
        fix = "for a .pub, add the key to ssh-agent: ssh-add KEY; for a private key: chmod 600 KEY"
        if "passphrase" in reason:
            quoted = shlex.quote(str(key))
            reason = "the key has a passphrase, and it is in no ssh-agent"
            fix = f'eval "$(ssh-agent)"; ssh-add {quoted}; then run the same command again'
        raise AirliftError(
            Kind.SIGNING, f"ssh-keygen cannot sign: {reason}", where=str(key), fix=fix
        )
    parse(result.stdout, "the new signature")
    return result.stdout


def public_key(key: Path) -> str:
    """Return the public half of a key, as `type base64`, without asking for a passphrase."""
    if key.suffix == ".pub":
        words = _read_key(key).decode("ascii", "replace").split()[:2]
        if len(words) < 2 or not _KEY_TYPE.fullmatch(words[0]):
            raise AirliftError(
                Kind.SIGNING,
                "this .pub file holds no public key",
                where=str(key),
                fix="name the .pub file that ssh-keygen made, or the private key itself",
            )
        return " ".join(words)
    if blob := _public_blob(key):
        return f"{strings(blob)[0].decode('ascii')} {base64.b64encode(blob).decode()}"
    result = sshkeygen.run(["-y", "-f", str(key)])
    if result.returncode != 0:
        raise AirliftError(
            Kind.SIGNING,
            "cannot read the public half of the key: " + sshkeygen.first_line(result.stderr),
            where=str(key),
            fix=MAKE_A_KEY,
        )
    return " ".join(result.stdout.decode().split()[:2])


def _read_key(key: Path) -> bytes:
    try:
        return read_file(key, MAX_KEY, links=True)
    except OSError as error:
        raise AirliftError(
            Kind.SIGNING,
            f"cannot read the key: {error.strerror}",
            where=str(key),
            fix=MAKE_A_KEY,
        ) from error


def _public_blob(key: Path) -> bytes | None:
    """Return the public half that OpenSSH's private keys have in clear text (PROTOCOL.key)."""
    lines = _read_key(key).splitlines()
    magic = b"openssh-key-v1\0"
    try:
        raw = base64.b64decode(b"".join(lines[1:-1]), validate=True)
        # First come cipher, key derivation and its options, then the number of keys.
        _, _, _, rest = take(raw.removeprefix(magic), 3)
        return take(rest[4:], 1)[0] if raw.startswith(magic) else None
    except ValueError:
        return None


SIGN_ELSEWHERE = f"sign manifest.json of this bundle: ssh-keygen -Y sign -n {NAMESPACE} -f KEY"


def check_fits(message: bytes, raw: bytes) -> None:
    """Refuse a signature that does not fit the message, whoever made it."""
    signature = parse(raw, "the signature")
    result = sshkeygen.run(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", raw], message)
    if result.returncode != 0 or signature.namespace != NAMESPACE:
        raise AirliftError(
            Kind.BAD_SIGNATURE,
            "the signature does not fit this bundle's manifest",
            where=f"{signature.key_type} key {signature.fingerprint}",
            fix=SIGN_ELSEWHERE,
        )


MAKE_A_KEY = (
    "make a key: ssh-keygen -t ed25519 -C release@airlift.example -f ~/.ssh/airlift_release; "
    "then: export AIRLIFT_SIGNING_KEY=~/.ssh/airlift_release"
)


def verify(message: bytes, signatures: Sequence[tuple[str, bytes]], trust: Trust) -> Verdict:
    """Check all signatures; require valid ones by enough different known keys."""
    allowed = load_signers(trust.allowed_signers)
    revoked = tuple(load_revoked(path) for path in trust.revoked)
    good: dict[str, Signer] = {}
    problems: list[AirliftError] = []
    for name, raw in signatures:
        signature = parse(raw, name)
        try:
            signer = _verify_one(message, signature, allowed, revoked, trust)
        except AirliftError as error:
            if error.kind is Kind.BAD_SIGNATURE:
                raise
            problems.append(error)
        else:
            good.setdefault(signer.fingerprint, signer)
    if not good and problems:
        raise problems[0]
    if len(good) < trust.required:
        names = "; ".join(str(signer) for signer in good.values())
        raise AirliftError(
            Kind.TOO_FEW_SIGNERS,
            f"signed with {len(good)} key{'s' if len(good) != 1 else ''}, "
            f"{trust.required} different ones are required",
            where=f"valid: {names}" + "".join(f"; ignored: {p.what}" for p in problems),
            fix="ask the vendor for the bundle with all signatures",
        )
    ignored = tuple(problem.what for problem in problems)
    return Verdict(tuple(good.values()), ignored, allowed.raw, revoked)


def _verify_one(
    message: bytes,
    signature: Signature,
    allowed: AllowedSigners,
    revoked: tuple[Revoked, ...],
    trust: Trust,
) -> Signer:
    key = f"{signature.key_type} key {signature.fingerprint}"
    # Check the key first: for a stranger's signature, nothing else matters.
    identities = allowed.identities_of(signature.blob)
    if not identities:
        raise AirliftError(
            Kind.UNKNOWN_SIGNER,
            f"signed with the {key}, which is not in the list of allowed signers",
            where=f"{signature.name}, {allowed.path}",
            fix="ask the vendor, through a separate channel, whether this is their key; "
            "if not, do not use the bundle",
        )
    if signature.namespace != trust.namespace:
        raise AirliftError(
            Kind.BAD_SIGNATURE,
            f"the signature was made for {signature.namespace!r}, not for {trust.namespace!r}",
            where=f"{signature.name}, {key}",
            fix="use only a bundle that was signed by `python -m bundle build`",
        )
    wanted = tuple(name for name in identities if not trust.identities or name in trust.identities)
    if not wanted:
        raise AirliftError(
            Kind.UNKNOWN_SIGNER,
            f"signed by {', '.join(identities)} with the {key}, "
            f"not by {' or '.join(trust.identities)}",
            where=f"{signature.name}, {allowed.path}",
            fix="check --identity, or ask the vendor who signs",
        )
    for one in revoked:
        if is_revoked(one, signature.key_type, signature.blob):
            raise _is_revoked(signature, key, one)
    stderr = b""
    for identity in wanted:
        command = ["-Y", "verify", "-I", identity, "-n", trust.namespace]
        # The exact bytes that were checked above, even if the files change meanwhile.
        files: list[str | bytes] = ["-f", allowed.raw, "-s", signature.raw]
        if trust.at is not None:
            # Every OpenSSH from 8.8 reads local time without a suffix. It ignores summer time, so
            # this does as well: an hour's difference could change the result.
            moment = time.strftime("%Y%m%d%H%M%S", time.gmtime(trust.at - time.timezone))
            files.append(f"-Overify-time={moment}")
        result = sshkeygen.run([*command, *files], message)
        # Its exit code decides. The fingerprint must be that of the counted key, too.
        if result.returncode == 0 and signature.fingerprint.encode() in result.stdout:
            valid = allowed.validity(identity, signature.blob)
            return Signer(identity, signature.fingerprint, signature.key_type, valid)
        stderr += result.stderr
    key = f"{key} of {' or '.join(wanted)}"
    raise _explanation(signature, key, stderr.decode(errors="replace"), trust)


def _explanation(signature: Signature, key: str, stderr: str, trust: Trust) -> AirliftError:
    where = f"{signature.name}, {trust.allowed_signers}"
    if "unknown key option" in stderr:
        # The list was read before, and has only options that 8.8 reads.
        return sshkeygen.too_old("it cannot read the dates in the list of signers")
    if found := re.search(r"bad options: (.*)", stderr):
        return AirliftError(
            Kind.SIGNERS_FILE,
            f"the list of allowed signers cannot be used: {found[1].strip()}",
            where=str(trust.allowed_signers),
            fix='write dates as valid-before="20271231"',
        )
    if "expired" in stderr or "not yet valid" in stderr:
        reason = "has expired" if "expired" in stderr else "is not valid yet"
        dates = re.search(r"verify time .*", stderr)
        return AirliftError(
            Kind.EXPIRED,
            f"the {key} {reason}: {dates[0] if dates else 'by its dates in the list'}",
            where=where,
            fix="check this machine's clock (date); if it is right, ask the vendor for the current "
            "list of allowed signers",
        )
    if "namespace" in stderr:
        return AirliftError(
            Kind.UNKNOWN_SIGNER,
            f"the {key} is in the list, but not for {trust.namespace}",
            where=where,
            fix=f'ask the vendor for a line with namespaces="{trust.namespace}"',
        )
    return AirliftError(
        Kind.BAD_SIGNATURE,
        f"the signature by the {key} does not fit what was signed: one of them was altered",
        where=f"{signature.name}; ssh-keygen: {sshkeygen.first_line(stderr.encode())}",
        fix="copy the bundle again; if it fails again, do not use it and inform the vendor",
    )


def _is_revoked(signature: Signature, key: str, revoked: Revoked) -> AirliftError:
    return AirliftError(
        Kind.REVOKED,
        f"the {key} is revoked",
        where=f"{signature.name}, {revoked.path}",
        fix="do not use this bundle; ask the vendor for one that is signed with their new key",
    )


def is_revoked(revoked: Revoked, key_type: str, blob: bytes) -> bool:
    """Return whether a list revokes this key; ssh-keygen reads a KRL.

    Raises:
        AirliftError: the KRL cannot be read.
    """
    if revoked.keys is not None:
        return revoked.names(blob)
    key = f"{key_type} {base64.b64encode(blob).decode()}\n".encode("ascii")
    result = sshkeygen.run(["-Q", "-f", revoked.raw, key])
    if result.returncode != 0 and b"REVOKED" not in result.stdout:
        raise AirliftError(
            Kind.SIGNERS_FILE,
            "the list of revoked keys is damaged: " + sshkeygen.first_line(result.stderr),
            where=str(revoked.path),
            fix="get the vendor's current list again",
        )
    return result.returncode != 0


def _unsigned(name: str, what: str) -> NoReturn:
    raise AirliftError(
        Kind.UNSIGNED,
        f"{name} holds no signature: {what}",
        where=name,
        fix="copy the bundle again; if it fails again, ask the vendor for a signed one",
    )
