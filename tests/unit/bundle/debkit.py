"""A flat apt repository in small: what bundles carry for the container engine."""

from __future__ import annotations

import hashlib
from pathlib import Path

PACKAGES = {
    "docker.io_26.1.5+dfsg1-9+b4_amd64.deb": b"deb",
    "iptables_1%3a1.8.11_amd64.deb": b"deb 2",
}


def repository(dest: Path) -> None:
    """Fill a folder with packages that are none, and their true index."""
    dest.mkdir(parents=True)
    index = ""
    for file, data in PACKAGES.items():
        (dest / file).write_bytes(data)
        name, version, architecture = file.removesuffix(".deb").replace("%3a", ":").split("_")
        index += f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
        index += f"Filename: ./{file}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n"
    (dest / "Packages").write_text(index)
