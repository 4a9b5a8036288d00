"""A small flat apt repository, as bundles carry it for the container engine."""

from __future__ import annotations

import hashlib
import random
import subprocess
from pathlib import Path

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2026 A
License: Apache-2.0
"""
PACKAGES = {
    "docker.io_26.1.5+dfsg1-9+b4_amd64.deb": b"deb",
    "iptables_1%3a1.8.11_amd64.deb": b"deb 2",
}


def package(folder: Path, name: str, compression: str) -> Path:
    """A real package with a copyright file, its members compressed as `dpkg-deb -Z` names it."""
    tree = folder / f"{name}-{compression}"
    copyright_file = tree / "usr" / "share" / "doc" / name / "copyright"
    copyright_file.parent.mkdir(parents=True)
    copyright_file.write_text(COPYRIGHT)
    # Put more data before and behind it than a reader buffers.
    for place in ("bin", "var"):
        (tree / place).mkdir()
        (tree / place / "noise").write_bytes(random.Random(place).randbytes(1 << 20))
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n"
    )
    made = folder / f"{name}-{compression}.deb"
    command = ["dpkg-deb", f"-Z{compression}", "--uniform-compression", "-b", str(tree), str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made


def repository(dest: Path) -> None:
    """Fill a folder with invalid packages and their valid index."""
    dest.mkdir(parents=True)
    index = ""
    for file, data in PACKAGES.items():
        (dest / file).write_bytes(data)
        name, version, architecture = file.removesuffix(".deb").replace("%3a", ":").split("_")
        index += f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
        index += f"Filename: ./{file}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n"
    (dest / "Packages").write_text(index)
