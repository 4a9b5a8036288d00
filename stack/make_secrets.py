"""The `secrets` service: passwords of the local stack, and who owns which volume.

Runs to its end before everything else. A password is made once and kept in a volume that only this
service mounts; each of the others finds those that it needs, and no other, in a volume of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from pathlib import Path

KEPT = Path("/volumes/kept")
ACL = Path("/stack/users.acl")
APP, POSTGRES, REDIS, NOBODY, GRAFANA, NGINX = 10001, 999, 999, 65534, 472, 101
PASSWORDS = (
    *("database_password", "owner_password", "monitor_password", "reader_password"),
    *("redis_password", "redis_monitor_password"),
)
#: Volume: its owner, and file name: which password is in it.
READERS: dict[str, tuple[int, dict[str, str]]] = {
    "app": (
        APP,
        {
            "database_password": "database_password",
            "redis_password": "redis_password",
            "database_source_items": "reader_password",
        },
    ),
    "migrate": (APP, {"database_password": "owner_password"}),
    "accounts": (
        POSTGRES,
        {name: name for name in PASSWORDS if not name.startswith("redis_")},
    ),
    "postgres-exporter": (NOBODY, {"monitor_password": "monitor_password"}),
}
#: Volumes of data: mount point, and who writes there.
DATA = {
    "postgres-data": POSTGRES,
    "postgres-socket": POSTGRES,
    "redis-data": REDIS,
    "prometheus-data": NOBODY,
    "alertmanager-data": NOBODY,
    "grafana-data": GRAFANA,
}


def write(path: Path, text: str, owner: int) -> None:
    """Put a file in place whole: readable by its owner only."""
    staged = path.with_name(f".{path.name}.staged")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chown(staged, owner, owner)
    staged.rename(path)


def password(name: str) -> str:
    """Return a password, made on the first call ever."""
    path = KEPT / name
    if not path.exists():
        write(path, secrets.token_urlsafe(32), 0)
    return path.read_text()


def hashed(text: str) -> str:
    """Return what Redis keeps of a password."""
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> int:
    """Make what is missing and hand it out."""
    KEPT.chmod(0o700)
    known = {name: password(name) for name in PASSWORDS}
    for volume, (owner, files) in READERS.items():
        for name, which in files.items():
            write(Path("/volumes", volume, name), known[which], owner)
    acl = ACL.read_text()
    for name in ("redis_password", "redis_monitor_password"):
        # The committed file has the hash of the name in place of the password's.
        acl = acl.replace(hashed(name), hashed(known[name]))
    write(Path("/volumes/redis/users.acl"), acl, REDIS)
    accounts = {"redis://airlift_monitor@redis:6379": known["redis_monitor_password"]}
    write(Path("/volumes/redis-exporter/passwords.json"), json.dumps(accounts), NOBODY)
    grafana = os.environ.get("GF_SECURITY_ADMIN_PASSWORD") or "admin"
    write(Path("/volumes/grafana/admin_password"), grafana, GRAFANA)
    for name, owner in DATA.items():
        folder = Path("/data", name)
        # Once: after that this service, which may not do more than give away, is a stranger there.
        if folder.stat().st_uid != owner:
            folder.chmod(0o750)
            os.chown(folder, owner, owner)
    if grafana == "admin":
        print(
            "WARNING: Grafana's password is the example's (admin). Set GF_SECURITY_ADMIN_PASSWORD"
            " in .env before anybody else reaches port 3000.",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
