"""The product's own image, built from the repository's Dockerfile without a package index.

The build context has the files that git knows, and the lock's wheels in `wheels/`.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from bundle.builder import cache, release, wheels
from bundle.builder.images import engine, recipes
from bundle.builder.images.lockfile import AppBuild, ImageLock
from bundle.builder.problems import Problem
from bundle.core.events import Log


def make(
    lock: ImageLock, recipe: AppBuild, base_image: str, log: Log, *, version: str = "dev"
) -> str:
    """Return the app image on a base (`airlift-build/NAME:HASH`); build it if an input changed."""
    tree = lock.path.parent.parent
    files = _files(tree, recipe)
    if recipe.dockerfile not in files:
        raise Problem(f"{tree / recipe.dockerfile} does not exist; the app image is built from it")
    with tempfile.TemporaryDirectory(dir=cache.root()) as folder:
        wheelhouse = Path(folder)
        controller = tree / "requirements" / "controller.txt"
        wheels.collect_app(tree / recipe.requirements, controller, wheelhouse, log=log)
        for path in sorted(wheelhouse.iterdir()):
            files[f"wheels/{path.name}"] = path.read_bytes()
    content = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    arguments = {
        "BASE_IMAGE": base_image,
        "SOURCE_DATE_EPOCH": str(lock.epoch),
        # Only in the image's config, so that a new version of the same code shares every layer.
        "VERSION": version,
        "REVISION": release.revision_of(tree),
    }
    what = cache.key([content, recipe.dockerfile, arguments, engine.image_id(base_image)])

    def build(reference: str) -> None:
        log(f"building image {recipe.name}")
        engine.build(
            recipes.context_of(files, lock.epoch),
            reference,
            dockerfile=recipe.dockerfile,
            arguments=arguments,
        )

    return recipes.once(f"airlift-build/{recipe.name}", what, build)


def _files(tree: Path, recipe: AppBuild) -> dict[str, bytes]:
    """Return the files that the Dockerfile may copy: all but those that git ignores."""
    command = ["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run(
        [*command, "--exclude-standard", "--", *recipe.context],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        raise Problem(
            f"cannot list the files of {tree}: {listed.stderr.strip()}",
            fix="a bundle is built in a clone of the repository",
        )
    # git also lists files that were deleted in the work tree.
    names = [name for name in listed.stdout.split("\0") if name and (tree / name).is_file()]
    return {name: (tree / name).read_bytes() for name in sorted(set(names))}
