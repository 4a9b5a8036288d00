"""The real sources of a bundle's images, packages and wheels."""

from __future__ import annotations

from pathlib import Path

from bundle.builder import cache, wheels
from bundle.builder.collected import Collected
from bundle.builder.hosts import packages
from bundle.builder.images import app, collect, engine, lockfile, recipes
from bundle.builder.images.blobs import BlobCache
from bundle.builder.images.upstream import load
from bundle.core.events import Log
from bundle.errors import AirliftError, Kind


class Real:
    """The suppliers of `python -m bundle build`."""

    def settle(self, lock: Path, source: str, log: Log) -> tuple[str, dict[str, dict[str, str]]]:
        """Return the source that `auto` means here, and the images that it cannot supply."""
        return collect.settle(lock, source, log)

    def images(self, lock: Path, source: str, version: str, layout: Path, log: Log) -> Collected:
        """Fill an OCI layout from registries or from Debian."""
        return collect.collect(lock, source, version, layout, log=log)

    def packages(self, dest: Path, log: Log) -> dict[str, dict[str, str]]:
        """Fill a repository of the engine's packages for each system; return the absent ones."""
        return packages.collect(dest, log=log)

    def wheels(self, requirements: Path, dest: Path, log: Log) -> None:
        """Fill the jump host's wheelhouse."""
        wheels.collect(requirements, dest, log=log)

    def zones(self, lock: Path) -> dict[str, tuple[str, ...]]:
        """Return the zones of each component, from the image lock."""
        return {name: image.zones for name, image in lockfile.load(lock).images.items()}


def app_image(lock: Path, name: str, source: str, tag: str, log: Log) -> None:
    """Build one of the product's own images, and tag it in the local engine."""
    pins = lockfile.load(lock)
    pin = pins.images.get(name)
    if pin is None or pin.build is None:
        own = ", ".join(sorted(key for key, image in pins.images.items() if image.build))
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"{name} is not an image that is built from this tree",
            where=str(lock),
            fix=f"name one of: {own}",
        )
    engine.require()
    upstream, recipe = pins.bases[pin.build.base]
    with cache.in_use():
        if collect.choose(pins, source, log) == "registry":
            base = load(upstream, BlobCache(), log)
        else:
            base = recipes.make(pins, recipe, recipes.base(pins, recipe.base, log), log)
        version = tag.rpartition(":")[2]
        engine.tag(app.make(pins, pin.build, base, log, version=version), tag)
