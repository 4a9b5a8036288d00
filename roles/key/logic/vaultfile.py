"""Read and replace a file of settings, plain or encrypted with Ansible Vault.

Encrypted content is never written in clear, not even to a temporary file. The file keeps its vault
id, password, mode and owner.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, is_encrypted, parse_vaulttext_envelope

from roles.site.module_utils.host_tools import flush_directory


class FileError(Exception):
    """Why the file cannot be read or replaced, and the fix."""


class Document(NamedTuple):
    """The content of a file, and how it is encrypted."""

    path: Path
    raw: bytes
    text: str
    label: str | None = None
    secret: Any = None

    @property
    def encrypted(self) -> bool:
        """Whether the file is a vault."""
        return self.secret is not None


def read(path: Path, vault: VaultLib) -> Document:
    """Return a file's text; a vault is decrypted with the passwords of this run."""
    # Resolve links: a link to the file must stay a link.
    path = path.resolve()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None
    label, secret, plain = None, None, raw
    if is_encrypted(raw):
        try:
            label = parse_vaulttext_envelope(raw)[3]
            plain, _, secret = vault.decrypt_and_get_vault_id(raw)
        except AnsibleError as error:
            raise FileError(f"{path} cannot be decrypted: {error.message}") from None
    try:
        return Document(path, raw, plain.decode(), label, secret)
    except UnicodeDecodeError:
        raise FileError(f"{path} is not UTF-8 text") from None


def change(path: Path, vault: VaultLib, edit: Callable[[Document], str]) -> Document:
    """Replace a file's text with the result of `edit`, atomically; return the old document.

    Another run of this function waits. A change that an editor saved meanwhile is an error.
    """
    with _only_one(path.resolve().parent):
        document = read(path, vault)
        text = edit(document)
        if text != document.text:
            _replace(document, _sealed(document, text, vault))
    return document


def _sealed(document: Document, text: str, vault: VaultLib) -> bytes:
    if not document.encrypted:
        return text.encode()
    return bytes(vault.encrypt(text, secret=document.secret, vault_id=document.label))


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    # Lock the directory: the file is replaced, so a lock on it would be lost.
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise FileError(f"{folder} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(document: Document, raw: bytes) -> None:
    path = document.path
    try:
        for left in path.parent.glob(f".{path.name}.*.partial"):
            left.unlink()
        # Hidden: Ansible reads every other file beside it.
        draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            _write(draft, raw, path.stat())
            if path.read_bytes() != document.raw:
                raise FileError(
                    f"{path} was changed by another program meanwhile: run the same command again"
                )
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        flush_directory(path.parent)
    except OSError as error:
        raise FileError(f"{path} cannot be replaced: {error.strerror}{_owner(path)}") from None


def _write(draft: Path, raw: bytes, like: os.stat_result) -> None:
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        mine = os.fstat(handle)
        if (mine.st_uid, mine.st_gid) != (like.st_uid, like.st_gid):
            os.fchown(handle, like.st_uid, like.st_gid)
        os.fchmod(handle, stat.S_IMODE(like.st_mode))
        file.write(raw)
        file.flush()
        os.fsync(handle)


def _owner(path: Path) -> str:
    try:
        return f"; it belongs to {path.owner()}: run the same command as that user"
    except (OSError, KeyError):
        return ""
