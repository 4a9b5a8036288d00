"""Signatures by ssh-keygen: making them, and finding out who made one.

ssh-keygen decides whether a signature is good. What is parsed here serves to count distinct keys,
to keep odd files away from it, and to say in one sentence what is wrong.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bundle.errors import AirliftError, Kind
from bundle.signers import AllowedSigners, fingerprint
from bundle.signers import load as load_signers

NAMESPACE = "airlift-bundle"
CUSTODY = "airlift-custody"
RECEIPT = "airlift-receipt"
MAX_SIGNATURES = 8
_BEGIN = "-----BEGIN SSH SIGNATURE-----"
_END = "-----END SSH SIGNATURE-----"


@dataclass(frozen=True)
class Trust:
    """Whom to believe."""

    allowed_signers: Path
    identities: tuple[str, ...] = ()
    revoked: Path | None = None
    required: int = 1
    # Seconds since 1970; None means now. Set for what was accepted earlier.
    at: float | None = None
    # What the signature must have been made for.
    namespace: str = NAMESPACE


@dataclass(frozen=True)
class Signer:
    """Somebody whose good signature was found."""

    identity: str
    fingerprint: str
    key_type: str

    def __str__(self) -> str:
        return f"{self.identity} with {self.key_type} key {self.fingerprint}"

    def as_dict(self) -> dict[str, str]:
        """The same for `--json` and the acceptance record."""
        return {
            "identity": self.identity,
            "fingerprint": self.fingerprint,
            "key_type": self.key_type,
        }


@dataclass(frozen=True)
class Verdict:
    """Who signed, and which signatures counted for nothing, with the reason."""

    signers: tuple[Signer, ...]
    ignored: tuple[str, ...]
    # The very lists by which this was decided.
    allowed_signers: bytes
    revoked: bytes | None


@dataclass(frozen=True)
class Signature:
    """What a signature file says of itself; nothing of it is proven."""

    raw: bytes
    name: str
    key_type: str
    blob: bytes
    namespace: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the key that it names."""
        return fingerprint(self.blob)


def parse(raw: bytes, name: str) -> Signature:
    """Read one armoured SSHSIG; a second one, or anything around it, is refused."""
    try:
        return _parse(raw, name)
    except (UnicodeDecodeError, binascii.Error, ValueError, IndexError):
        _unsigned(name, "it is not an OpenSSH signature")


def _parse(raw: bytes, name: str) -> Signature:
    lines = raw.decode("ascii").split("\n")
    if lines[0] != _BEGIN or lines[-2:] != [_END, ""]:
        _unsigned(name, "it is not one OpenSSH signature")
    body = base64.b64decode("".join(lines[1:-2]), validate=True)
    if armour(body) != raw:
        _unsigned(name, "it is not written as ssh-keygen writes signatures")
    if body[:6] != b"SSHSIG" or body[6:10] != b"\0\0\0\1":
        _unsigned(name, "it is not a signature of version 1")
    fields = _strings(body[10:])
    blob, namespace, _reserved, _hash, _signature = fields
    key_type = _strings(blob)[0].decode("ascii")
    return Signature(raw, name, key_type, blob, namespace.decode("ascii"))


def armour(body: bytes) -> bytes:
    """The text form in which ssh-keygen writes a signature."""
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
    result = _run(["-Y", "sign", "-q", "-f", str(key), "-n", namespace], message)
    if result.returncode != 0:
        raise AirliftError(
            Kind.SIGNING,
            f"ssh-keygen could not sign: {_first_line(result.stderr)}",
            where=str(key),
            fix="for a .pub, add the key to ssh-agent: ssh-add KEY; for a private key, see that "
            "it is mode 0600 and yours",
        )
    parse(result.stdout, "the new signature")
    return result.stdout


def public_key(key: Path) -> str:
    """The public half of a signing key, as `type base64`."""
    if key.suffix == ".pub":
        text = key.read_text(encoding="utf-8")
    else:
        result = _run(["-y", "-f", str(key)], b"")
        if result.returncode != 0:
            raise AirliftError(
                Kind.SIGNING,
                f"the public half of the key cannot be read: {_first_line(result.stderr)}",
                where=str(key),
                fix=MAKE_A_KEY,
            )
        text = result.stdout.decode()
    return " ".join(text.split()[:2])


def check_fits(message: bytes, raw: bytes) -> None:
    """Refuse a signature that does not fit the message, whoever made it."""
    signature = parse(raw, "the signature")
    with tempfile.TemporaryDirectory(prefix="airlift-") as folder:
        sig = Path(folder, "sig")
        sig.write_bytes(raw)
        result = _run(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(sig)], message)
    if result.returncode != 0 or signature.namespace != NAMESPACE:
        raise AirliftError(
            Kind.BAD_SIGNATURE,
            "the signature does not fit this bundle's manifest",
            where=f"{signature.key_type} key {signature.fingerprint}",
            fix=f"sign manifest.json of this bundle: ssh-keygen -Y sign -n {NAMESPACE} -f KEY",
        )


MAKE_A_KEY = (
    "make a key: ssh-keygen -t ed25519 -C release@airlift.example -f ~/.ssh/airlift_release; "
    "then: export AIRLIFT_SIGNING_KEY=~/.ssh/airlift_release"
)


def verify(message: bytes, signatures: Sequence[tuple[str, bytes]], trust: Trust) -> Verdict:
    """Check all signatures; succeed when enough different known keys made good ones."""
    allowed = load_signers(trust.allowed_signers)
    revoked = _read_revocation_list(trust)
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
            where=f"good: {names}" + "".join(f"; not counted: {p.what}" for p in problems),
            fix="ask the vendor for the bundle with all signatures",
        )
    ignored = tuple(problem.what for problem in problems)
    return Verdict(tuple(good.values()), ignored, allowed.raw, revoked)


def _verify_one(
    message: bytes,
    signature: Signature,
    allowed: AllowedSigners,
    revoked: bytes | None,
    trust: Trust,
) -> Signer:
    key = f"{signature.key_type} key {signature.fingerprint}"
    if signature.namespace != trust.namespace:
        raise AirliftError(
            Kind.BAD_SIGNATURE,
            f"the signature was made for {signature.namespace!r}, not for {trust.namespace!r}",
            where=f"{signature.name}, {key}",
            fix="use only a bundle that was signed by `python -m bundle build`",
        )
    identities = allowed.identities_of(signature.blob)
    if not identities:
        raise AirliftError(
            Kind.UNKNOWN_SIGNER,
            f"signed with the {key}, which is not in the list of allowed signers",
            where=f"{signature.name}, {allowed.path}",
            fix="ask the vendor, by another way than the stick, whether this key is his; "
            "if not, do not use the bundle",
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
    stderr = b""
    for identity in wanted:
        lists = allowed.raw, revoked
        result = _ask_ssh_keygen(message, signature, lists, identity, trust)
        # Its exit code decides; the fingerprint must also be the one that is counted.
        if result.returncode == 0 and signature.fingerprint.encode() in result.stdout:
            return Signer(identity, signature.fingerprint, signature.key_type)
        stderr += result.stderr
    key = f"{key} of {' or '.join(wanted)}"
    raise _explanation(signature, key, stderr.decode(errors="replace"), revoked, trust)


def _ask_ssh_keygen(
    message: bytes,
    signature: Signature,
    lists: tuple[bytes, bytes | None],
    identity: str,
    trust: Trust,
) -> subprocess.CompletedProcess[bytes]:
    with tempfile.TemporaryDirectory(prefix="airlift-") as folder:
        # The very bytes that were checked above, whatever happens to the files meanwhile.
        signers = Path(folder, "allowed_signers")
        signers.write_bytes(lists[0])
        sig = Path(folder, "sig")
        sig.write_bytes(signature.raw)
        command = ["-Y", "verify", "-f", str(signers), "-I", identity, "-n", trust.namespace]
        command += ["-s", str(sig)]
        if lists[1] is not None:
            krl = Path(folder, "revoked")
            krl.write_bytes(lists[1])
            command += ["-r", str(krl)]
        if trust.at is not None:
            # Local time without a suffix is what every OpenSSH from 8.8 understands.
            moment = time.strftime("%Y%m%d%H%M%S", time.localtime(trust.at))
            command += [f"-Overify-time={moment}"]
        return _run(command, message)


def _explanation(
    signature: Signature, key: str, stderr: str, revoked: bytes | None, trust: Trust
) -> AirliftError:
    where = f"{signature.name}, {trust.allowed_signers}"
    if revoked is not None and _is_revoked(signature, revoked):
        return AirliftError(
            Kind.REVOKED,
            f"the {key} is revoked",
            where=f"{signature.name}, {trust.revoked}",
            fix="do not use this bundle; ask the vendor for one that is signed with his new key",
        )
    if "expired" in stderr or "not yet valid" in stderr:
        reason = "has expired" if "expired" in stderr else "is not valid yet"
        dates = re.search(r"verify time .*", stderr)
        return AirliftError(
            Kind.EXPIRED,
            f"the {key} {reason}: {dates[0] if dates else 'by its dates in the list'}",
            where=where,
            fix="check this machine's clock (date); else ask the vendor for the current key list",
        )
    if "namespace" in stderr:
        return AirliftError(
            Kind.UNKNOWN_SIGNER,
            f"the {key} is in the list, but not for {trust.namespace}",
            where=where,
            fix=f'its line must say namespaces="{trust.namespace}"; ask the vendor',
        )
    return AirliftError(
        Kind.BAD_SIGNATURE,
        f"the signature by the {key} does not fit what was signed: one of them was changed",
        where=f"{signature.name}; ssh-keygen: {_first_line(stderr.encode())}",
        fix="copy the bundle again; if it stays so, do not use it and tell the vendor",
    )


def _read_revocation_list(trust: Trust) -> bytes | None:
    if trust.revoked is None:
        return None
    try:
        raw = trust.revoked.read_bytes()
    except OSError as error:
        raise AirliftError(
            Kind.SIGNERS_FILE,
            f"the list of revoked keys cannot be read: {error.strerror}",
            where=str(trust.revoked),
            fix="name the vendor's current KRL with --revoked",
        ) from error
    if not raw.startswith(b"SSHKRL\n\0"):
        raise AirliftError(
            Kind.SIGNERS_FILE,
            "the list of revoked keys is not an OpenSSH revocation list (KRL)",
            where=str(trust.revoked),
            fix="it is made with: ssh-keygen -k -f revoked.krl old-key.pub",
        )
    return raw


def _is_revoked(signature: Signature, revoked: bytes) -> bool:
    with tempfile.TemporaryDirectory(prefix="airlift-") as folder:
        krl = Path(folder, "revoked")
        krl.write_bytes(revoked)
        key = Path(folder, "key.pub")
        blob = base64.b64encode(signature.blob).decode()
        key.write_text(f"{signature.key_type} {blob}\n", encoding="ascii")
        result = _run(["-Q", "-f", str(krl), str(key)], b"")
    return result.returncode != 0 and b"REVOKED" in result.stdout


def _run(arguments: list[str], message: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments],
            input=message,
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise AirliftError(
            Kind.PYTHON,
            "ssh-keygen is not on this machine",
            where="PATH",
            fix="install OpenSSH 8.8 or newer (package openssh-client)",
        ) from error


def _strings(data: bytes) -> list[bytes]:
    """Split SSH wire format into its strings."""
    found: list[bytes] = []
    while data:
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size or len(data) < 4:
            message = "the signature is too short"
            raise ValueError(message)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def _unsigned(name: str, what: str) -> NoReturn:
    raise AirliftError(
        Kind.UNSIGNED,
        f"{name} holds no signature: {what}",
        where=name,
        fix="copy the bundle again; if it stays so, ask the vendor for a signed one",
    )


def _first_line(text: bytes) -> str:
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[0] if lines else "it gave no reason"
