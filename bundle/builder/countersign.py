"""Adds another signer's signature to a finished bundle, without changing its content."""

from __future__ import annotations

import shlex
import tempfile
from contextlib import nullcontext
from pathlib import Path

from bundle.builder import sums
from bundle.core import locks
from bundle.core.files import fsync_directory, read_file
from bundle.errors import AirliftError, Kind
from bundle.format import manifest, tar
from bundle.trust import sshsig
from bundle.verify.checks import check_members, opened


def add(path: Path, *, key: Path | None, signature: Path | None) -> int:
    """Add a signature, made with a key or on the signer's own machine; return their number.

    Every byte is checked against the manifest first, so that nobody signs a damaged bundle. The new
    file replaces the old one in one step. SHA256SUMS is updated if there is a key to sign it.
    """
    # Without a lock, two signers would each write a bundle without the other's signature.
    with locks.folder(path.parent) if path.is_file() else nullcontext():
        return _add(path, key, signature)


def _made_elsewhere(file: Path) -> bytes:
    try:
        return read_file(file, tar.MAX_SIGNATURE, links=True)
    except OSError as error:
        raise AirliftError(
            Kind.SIGNING,
            f"the signature cannot be read: {error.strerror or error}",
            where=str(file),
            fix=sshsig.SIGN_ELSEWHERE,
        ) from None


def _add(path: Path, key: Path | None, signature: Path | None) -> int:
    with opened(path, trust=None, home=None) as bundle:
        if not bundle.source.whole:
            raise AirliftError(
                Kind.SIGNING,
                "a signature is added to the bundle file, not to its parts",
                where=str(path),
                fix=f"python -m bundle join {shlex.quote(str(path))}, sign that file, and split it "
                "again",
            )
        check_members(bundle)
        if signature is not None:
            new = _made_elsewhere(signature)
        elif key is not None:
            new = sshsig.sign(bundle.raw_manifest, key)
        else:
            raise AirliftError(
                Kind.SIGNING,
                "no key to sign with, and no signature to add",
                where="--key, --signature or AIRLIFT_SIGNING_KEY",
                fix=sshsig.MAKE_A_KEY,
            )
        sshsig.check_fits(bundle.raw_manifest, new)
        signatures = [*bundle.signatures, new]
        fingerprints = [sshsig.parse(raw, "a signature").fingerprint for raw in signatures]
        if len(set(fingerprints)) < len(fingerprints):
            raise AirliftError(
                Kind.SIGNING,
                f"the key {fingerprints[-1]} has signed this bundle already",
                where=str(path),
                fix="no action is needed",
            )
        if len(fingerprints) > sshsig.MAX_SIGNATURES:
            raise AirliftError(
                Kind.SIGNING,
                f"the bundle has {sshsig.MAX_SIGNATURES} signatures, which is the maximum",
                where=str(path),
                fix="build it again, and sign it only with the keys that its clients require",
            )
        start = bundle.offsets[0] - tar.BLOCK
        with tempfile.TemporaryDirectory(prefix=".sign-", dir=path.parent) as folder:
            draft = Path(folder, path.name)
            with draft.open("xb") as out:
                writer = tar.Writer(out)
                writer.add(manifest.MANIFEST, bundle.raw_manifest)
                for number, raw in enumerate(signatures, 1):
                    writer.add(manifest.signature_name(number), raw)
                writer.add_rest(path, start)
            with opened(draft, trust=None, home=None) as again:
                check_members(again)
            draft.replace(path)
    fsync_directory(path.parent)
    if key is not None:
        sums.write(path.parent, path.name, key)
    return len(signatures)
