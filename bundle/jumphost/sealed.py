"""Encryption of a saved state: a file of Ansible Vault, which the release's own tools open.

Ansible Vault encrypts (AES-256-CTR) and authenticates (HMAC-SHA256), and is in every release. If
everything else is lost, `ansible-vault decrypt` and `tar` open the file. `openssl enc` does not
notice an altered file, and `age` reads a passphrase from a terminal only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bundle.errors import AirliftError, Kind

LABEL = "airlift-state"
#: How every saved state begins.
HEAD = f"$ANSIBLE_VAULT;1.2;AES256;{LABEL}\n".encode()
#: Vault derives the key with 10,000 rounds only, so a passphrase must be hard to guess by itself.
SHORTEST = 16


def seal(data: bytes, passphrase: bytes) -> bytes:
    """Return the data encrypted."""
    sealed: bytes = _vault(passphrase).encrypt(data, vault_id=LABEL)
    return sealed


def unseal(raw: bytes, passphrase: bytes, where: Path) -> bytes:
    """Return the data of an encrypted file; refuse another passphrase and an altered file."""
    from ansible.errors import AnsibleError  # noqa: PLC0415 - not needed by other commands

    if not raw.startswith(HEAD):
        raise AirliftError(
            Kind.STATE,
            "this is not a saved state of a jump host",
            where=str(where),
            fix="name a file that `state save` wrote",
        )
    try:
        data: bytes = _vault(passphrase).decrypt(raw)
    # A damaged file can break the reader anywhere, and what it says may quote the file.
    except (AnsibleError, ValueError, TypeError, IndexError) as error:
        raise AirliftError(
            Kind.STATE,
            "the passphrase is wrong, or the file was altered or cut short",
            where=str(where),
            fix="type the passphrase again; if it is right, use another copy of the file",
        ) from error
    return data


def _vault(passphrase: bytes) -> Any:
    try:
        from ansible.parsing.vault import VaultLib, VaultSecret  # noqa: PLC0415 - slow to load
    except ImportError as error:
        raise AirliftError(
            Kind.PYTHON,
            "this Python has no Ansible Vault, which encrypts a saved state",
            fix="run the command with the venv of a release: "
            "/opt/airlift/current/venv/bin/python -m bundle state …",
        ) from error
    return VaultLib([(LABEL, VaultSecret(passphrase))])
