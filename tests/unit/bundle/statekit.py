"""A jump host with all the state that no bundle can restore."""

from __future__ import annotations

import stat
from pathlib import Path

from bundle.jumphost.store import Acceptance, Home
from bundle.trust.sshsig import Signer
from tests.unit.bundle.bundlekit import Keys

PASSPHRASE = "correct horse battery staple"
SIGNER = Signer("release@airlift.example", "SHA256:x", "ssh-ed25519")
#: Files of a site: content and mode.
SITE = {
    "hosts.yml": (b"all: {}\n", 0o640),
    "group_vars/all/main.yml": (b"site_name: acme\n", 0o660),
    "group_vars/all/vault.yml": (b"$ANSIBLE_VAULT;1.2;AES256;acme\n00\n", 0o600),
    ".airlift/smoke.key": (b"s" * 48 + b"\n", 0o600),
    ".airlift/tls/ca.key": (b"KEY OF THE AUTHORITY", 0o600),
    ".airlift/tls/ca.pem": (b"AUTHORITY", 0o644),
    ".airlift/tls/app-1/host.key": (b"KEY OF A HOST", 0o400),
    ".airlift/tls/app-1/host.crt": (b"CERTIFICATE", 0o644),
}
REPORT = ".airlift/status.json"


def record(version: str, serial: int, *, release: str = "") -> Acceptance:
    digest = f"{serial:064x}"
    when = f"2026-01-{serial:02d}T00:00:00Z"
    return Acceptance(serial, version, when, digest, release or digest, (SIGNER,))


def write(top: Path, files: dict[str, tuple[bytes, int]]) -> None:
    for name, (data, mode) in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)


def jump_host(root: Path, keys: Keys) -> Home:
    """Return a used jump host: two releases, a revoked key, a site, a custody log."""
    home = Home(root)
    home.create()
    for version, serial in (("1.0.0", 1), ("1.1.0", 10)):
        home.accept(record(version, serial))
        home.release(version).mkdir()
    home.current.symlink_to("releases/1.1.0")
    (home.trust / "allowed_signers").write_text(keys.line())
    (home.trust / "required_signers").write_text("2\n")
    (home.trust / "revoked").write_text(public(keys, "stolen"))
    (root / "airlift-1.0.0-amd64.tar.custody").write_text("an entry\n")
    write(home.sites / "acme", SITE)
    (home.sites / "acme/.airlift").chmod(0o2770)
    (home.sites / "acme" / REPORT).write_text("{}")
    (home.sites / "acme/group_vars/app.yml").symlink_to("all/main.yml")
    (home.sites / "acme.vault-password").write_text("not to be saved")
    return home


def public(keys: Keys, name: str) -> str:
    return " ".join(keys.key(name).with_suffix(".pub").read_text().split()[:2]) + "\n"


def new_host(root: Path, keys: Keys) -> Home:
    """Return a jump host on which only the newest release was imported."""
    home = Home(root)
    home.create()
    home.accept(record("1.1.0", 10))
    home.release("1.1.0").mkdir()
    home.current.symlink_to("releases/1.1.0")
    (home.trust / "allowed_signers").write_text(keys.line())
    return home


def shape(top: Path) -> dict[str, tuple[str, bytes]]:
    """Return mode and content by path below a directory, without reports and locks."""
    found = {}
    for path in sorted(top.rglob("*")):
        name = path.relative_to(top).as_posix()
        if name in (REPORT, "store/lock") or {".replaced", ".restoring"} & set(
            path.relative_to(top).parts
        ):
            continue
        mode = path.lstat().st_mode
        link = stat.S_ISLNK(mode)
        data = str(path.readlink()).encode() if link else b""
        found[name] = (
            stat.filemode(mode),
            path.read_bytes() if path.is_file() and not link else data,
        )
    return found
