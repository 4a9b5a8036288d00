"""Make two releases of real images: what bundles bring, without building and importing bundles.

    python molecule/single/files/releases.py FOLDER

FOLDER/current is of this tree, and FOLDER/1.1.0 of this tree with the patch of that name.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from bundle.builder import build, release, suppliers  # noqa: E402
from bundle.builder.hosts import packages, systems  # noqa: E402
from bundle.format import manifest  # noqa: E402
from scripts.releases import source_tree  # noqa: E402

PATCH = "1.1.0"
#: What a playbook uses of a release besides its manifest, images and packages.
CONTENT = ("playbooks", "roles", "bundle", "ansible.cfg")


def say(message: str) -> None:
    """Report progress on standard error."""
    print(message, file=sys.stderr, flush=True)


def make(tree: Path, version: str, folder: Path) -> None:
    """Make the release of a tree, as an import leaves it on a jump host."""
    real, lock = suppliers.Real(), tree / "bundle" / "images.lock.yml"
    wanted = release.load(tree, version=version, serial=None)
    source, absent = real.settle(lock, "auto", say)
    collected = real.images(lock, source, version, folder / "oci", say)
    (debian,) = (one for one in systems.load() if one.required)
    packages.fetch(debian, folder / "packages" / debian.folder)
    for name in CONTENT:
        (folder / name).symlink_to(tree / name)
    described = build.described(wanted, replace(collected, absent=absent), real.zones(lock))
    (folder / manifest.MANIFEST).write_bytes(manifest.encode(described))


def main() -> None:
    """Make both releases anew."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    first = release.load(ROOT, version=None, serial=None).version
    make(ROOT, first, folder / first)
    (folder / "current").symlink_to(first)
    # Beside the releases, because other tests make this tree, too.
    make(source_tree(PATCH, folder / "trees" / PATCH), PATCH, folder / PATCH)


if __name__ == "__main__":
    main()
