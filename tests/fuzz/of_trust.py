"""Fuzz rows for what `bundle/` reads about signers: lists, signatures, custody logs, receipts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bundle.errors import Kind
from bundle.format import manifest
from bundle.jumphost import receipt, store
from bundle.trust import allowed_signers, custody, sshsig
from tests.fuzz.mutate import (
    Armour,
    Json,
    Lines,
)
from tests.fuzz.of_bundle import raw, small
from tests.fuzz.parser import Case, Kit, fuzzed

SIGNER = sshsig.Signer("jump@site", "SHA256:x", "ssh-ed25519", "from 20260101")
TOKENS = [
    b"release@x",
    b"*",
    b"a,b",
    b'"a b"',
    b'namespaces="x"',
    b"cert-authority",
    b"ssh-ed25519",
]
TOKENS += [b'valid-after="20260101"', b"valid-before=x", b"AAAA", b"\t", b"\\", b"\0", b"#", b'"']


@fuzzed(
    "allowed signers",
    "bundle.trust.allowed_signers.parse",
    *("bundle/trust/allowed_signers.py", "bundle/jumphost/kept_trust.py"),
    form=Lines(TOKENS),
    kinds=(Kind.SIGNERS_FILE,),
)
def of_signers(kit: Kit) -> Case:
    """An accepted signer has a name, which is no pattern, and a key."""
    dates = f'namespaces="{sshsig.NAMESPACE}",valid-after="20260101",valid-before="20271231"'
    text = f"# signers\n{kit.keys.line()}{kit.keys.line('second', 'a@x,b@x', dates)}\n"
    seeds = [text.encode(), kit.keys.line().encode()]

    def check(data: bytes) -> None:
        found = allowed_signers.parse(Path("list"), data)
        assert found.keys
        for key in found.keys:
            assert all(name and not set(name) & set("*?!") for name in key.identities)
            assert "cert-authority" not in key.options.lower()
            name = key.identities[0]
            assert name in found.identities_of(key.blob)
            assert found.validity(name, key.blob).isprintable()

    return Case(seeds, check)


@fuzzed(
    "revoked keys",
    "bundle.trust.allowed_signers.load_revoked",
    *("bundle/trust/allowed_signers.py", "bundle/jumphost/kept_trust.py"),
    form=Lines([b"ssh-ed25519", b"#", b"SSHKRL\n\0", b"AAAAC3NzaC1lZDI1NTE5AAAAIA", b"\x1c"]),
    kinds=(Kind.SIGNERS_FILE,),
)
def of_revoked(kit: Kit) -> Case:
    """A plain list of revoked keys means the same to ssh-keygen as to this reader."""
    line = " ".join(sshsig.public_key(kit.keys.key()).split()) + "\n"
    krl = b"SSHKRL\n\0" + bytes(28) + b"\0\0\0\0" * 2 + b"\1\0\0\0\4\0\0\0\0"
    seeds = [f"# gone\n{line}".encode(), line.encode(), krl]

    def check(data: bytes) -> None:
        found = allowed_signers.load_revoked(kit.file("revoked", data))
        if found.keys is not None:
            again = allowed_signers.load_revoked(kit.file("again", found.for_ssh_keygen))
            assert again.keys == found.keys
            assert all(found.names(blob) for _, blob in found.keys)

    return Case(seeds, check)


@fuzzed(
    "signature",
    "bundle.trust.sshsig.parse",
    "bundle/trust/sshsig.py",
    form=Armour(),
    kinds=(Kind.UNSIGNED,),
)
def of_signature(kit: Kit) -> Case:
    """An accepted signature is armoured exactly as ssh-keygen does it, and can be printed."""
    seeds = [sshsig.sign(b"message", kit.keys.key(), namespace=name) for name in ("a", "airlift")]

    def check(data: bytes) -> None:
        found = sshsig.parse(data, "manifest.sig")
        assert found.raw == data
        assert found.key_type.isprintable()
        assert found.fingerprint.startswith("SHA256:")
        assert repr(found.namespace).isprintable()

    return Case(seeds, check)


def _log(kit: Kit) -> bytes:
    path = kit.folder / "airlift.custody"
    path.unlink(missing_ok=True)
    facts: dict[str, Any] = {
        "bundle": {"bytes": 7, "manifest_sha256": "0" * 64, "name": "a.tar"},
        "done": "import",
        "host": "jump",
        "note": "as agreed",
        "result": {"kind": "good", "what": "GOOD"},
        "time": "2026-01-02T03:04:05Z",
        "who": "release@x",
    }
    facts["bundle"] |= {"parts": ["1" * 64, None], "sha256": None}
    for who, key in (("a@x", None), ("Zoë", kit.keys.key()), ("b@x", None)):
        custody.append(path, {**facts, "who": who}, key=key)
    return path.read_bytes()


@fuzzed(
    "custody log",
    "bundle.trust.custody.parse",
    "bundle/trust/custody.py",
    form=Lines(
        inner=Json(lambda value: json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
    ),
    refusals=(),
)
def of_custody(kit: Kit) -> Case:
    """No input crashes; problems are few short lines; a valid log is returned whole."""
    log = _log(kit)

    def check(data: bytes) -> None:
        found = custody.parse(data)
        assert len(found.problems) <= custody.MAX_PROBLEMS + 1
        for problem in found.problems:
            assert problem.isprintable(), problem
            problem.encode("utf-8")
        if not found.problems:
            assert b"".join(entry.line() for entry in found.entries) == data
            assert [entry.number for entry in found.entries] == list(
                range(1, len(found.entries) + 1)
            )
        for entry in found.entries:
            assert entry.signed_bytes

    return Case([log, log.split(b"\n")[0] + b"\n", b""], check)


@fuzzed(
    "receipt",
    "bundle.jumphost.receipt.read",
    "bundle/jumphost/receipt.py",
    form=Json(manifest.encode),
    kinds=(Kind.BUILD_INPUT,),
)
def of_receipt(kit: Kit) -> Case:
    """A signed receipt with any content is read or refused."""
    rows = manifest.parse(raw(small(kit))).contents
    release = {
        "version": "1.0.0",
        "serial": 1,
        "release_sha256": "0" * 64,
        "image_source": "debian",
        "architecture": "amd64",
        "members": [{"path": m.path, "size": m.size, "sha256": m.sha256} for m in rows],
    }
    data = {"format": 1, "product": "airlift", "host": "jump", "created": store.now()}
    seed = manifest.encode({**data, "hashed": True, "releases": [release]})
    path = kit.folder / "site.receipt"
    current = [seed]
    # Skip signing: it would take most of the time, and signatures have a row of their own.
    kit.patch.setattr(receipt, "_authenticate", lambda *_: (current[0], SIGNER))

    def check(data: bytes) -> None:
        current[0] = data
        found = receipt.read(path, path)
        assert found.releases
        for one in found.releases:
            assert manifest.is_version(one["version"])
            assert all(len(each["path"]) <= manifest.MAX_PATH for each in one["members"])

    return Case([seed], check)
