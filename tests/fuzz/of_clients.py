"""Fuzz rows for a client's own files: inventories, vaults, certificates."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
from pathlib import Path

from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from roles.key.logic import listedit, vaultfile
from tests.fuzz.mutate import Bytes, Lines
from tests.fuzz.parser import Case, Kit, fuzzed
from tests.unit.roles.conftest import plugin

NAME = "app_api_keys"
OLD = f"- client: old\n    key_sha256: '{'0' * 64}'\n"
INVENTORIES = (
    f"a: 1  # kept\n{NAME}:\n  # who\n  {OLD}\n# b\nb: 2\n",
    f"all:\n  vars:\n    {NAME}: [{{client: old, key_sha256: '{'0' * 64}'}}]  # one\n    b: 2\n",
    f"{NAME}: []\nb: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n",
    "a: 1  # kept\n",
)


@fuzzed(
    "list in an inventory",
    "roles.key.logic.listedit.add, remove",
    "roles/key/logic/listedit.py",
    form=Lines(
        [b"- ", b"&a", b"*a", b"!!set", b"? ", b"|", b"'", b'"', b"{", b"[", b"<<:", b"\t", b"#"]
    ),
    refusals=(listedit.EditError,),
)
def of_inventory(kit: Kit) -> Case:
    """An edit changes only the list; a file that cannot be edited safely is refused in words."""
    entry = {"client": "new", "key_sha256": "1" * 64, "scopes": ["predict"]}

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        before = listedit.entries(text, NAME)
        after = listedit.add(text, NAME, entry)
        assert listedit.entries(after, NAME) == [*before, entry]
        back = listedit.remove(after, NAME, len(before))
        assert listedit.entries(back, NAME) == before

    return Case([one.encode() for one in INVENTORIES], check)


@fuzzed(
    "vault",
    "roles.key.logic.vaultfile.read",
    "roles/key/logic/vaultfile.py",
    form=Lines(
        [b"$ANSIBLE_VAULT;1.1;AES256", b"$ANSIBLE_VAULT;1.2;AES256;acme", b";", b"33", b"\xff"]
    ),
    refusals=(vaultfile.FileError,),
)
def of_vault(kit: Kit) -> Case:
    """A file is read or refused with a reason; an altered vault is never opened."""
    text = f"# secrets\n{NAME}: []\npassword: s3cret\n"
    vault = VaultLib([(one, VaultSecret(b"right")) for one in ("acme", "default")])
    seeds = [
        bytes(VaultLib().encrypt(text, secret=VaultSecret(b"right"), vault_id=label))
        for label in ("acme", None)
    ]

    def check(data: bytes) -> None:
        found = vaultfile.read(kit.file("vault.yml", data), vault)
        assert not found.encrypted or found.text == text

    return Case([*seeds, text.encode()], check)


def certificate(kit: Kit) -> tuple[bytes, Path]:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    names = [x509.DNSName("site.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, None)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.DER), kit.file("site.key", private)


@fuzzed(
    "certificate",
    "tls.tls_pair_problem",
    "roles/tls/filter_plugins/tls.py",
    form=Bytes(
        [b"\x30\x82", b"\x82\x0csite.example", b"\x87\x04", b"\x06\x03\x55\x1d\x11", b"\x88"]
    ),
    refusals=(),
)
def of_certificate(kit: Kit) -> Case:
    """A client's certificate is accepted, or the answer names the problem."""
    tls = plugin("tls/filter_plugins/tls.py")
    der, key = certificate(kit)

    def check(data: bytes) -> None:
        text = b"-----BEGIN CERTIFICATE-----\n"
        text += base64.encodebytes(data) + b"-----END CERTIFICATE-----\n"
        path = kit.file("site.pem", text)
        for authority in (path, key):
            said = tls.tls_pair_problem(str(path), str(key), ["site.example"])
            assert isinstance(said, str)
            said = tls.tls_due(str(path), str(key), ["site.example"], 0, str(authority))
            assert isinstance(said, str)
            if authority == key:
                break

    return Case([der], check)
