"""Collects the product's images: from registries by digest, or from Debian by recipes."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.builder import cache
from bundle.builder.collected import Collected
from bundle.builder.images import app as app_image
from bundle.builder.images import engine, lockfile, probes, recipes
from bundle.builder.images import upstream as registries
from bundle.builder.images.blobs import BlobCache, DamagedBlobError, Image
from bundle.builder.images.layout import export, write_layout
from bundle.builder.images.lockfile import ImageLock, ImagePin, Recipe, Upstream
from bundle.builder.problems import Problem
from bundle.core.events import Log

SOURCES = ("auto", "registry", "debian")

_AT_ONCE = 2


@dataclass(frozen=True)
class _Supplied:
    """One image with its version."""

    image: Image
    version: str
    drift: str | None


def collect(lock: Path, source: str, version: str, layout: Path, *, log: Log) -> Collected:
    """Fill `layout` with an OCI image layout of every image of the lock; describe them.

    Work is cached by content, so that unchanged images are not built, saved or compressed again.
    """
    pins = lockfile.load(lock)
    chosen = choose(pins, source, log)
    engine.require()
    blobs = BlobCache()
    with cache.in_use():
        try:
            supplied = _supply(pins, chosen, version, blobs, log)
            _write(layout, supplied, blobs)
        except DamagedBlobError as damage:
            log(str(damage))
            supplied = _supply(pins, chosen, version, blobs, log)
            _write(layout, supplied, blobs)
    cache.when_unused(blobs.forget_unused)
    cache.when_unused(engine.prune_own)
    components = {
        name: _component(pins, pins.images[name], one) for name, one in sorted(supplied.items())
    }
    return Collected(chosen, components, _absent(pins, chosen))


def settle(lock: Path, source: str, log: Log) -> tuple[str, dict[str, dict[str, str]]]:
    """Return the source that `auto` means here, and the images that it cannot supply."""
    pins = lockfile.load(lock)
    chosen = choose(pins, source, log)
    return chosen, _absent(pins, chosen)


def choose(lock: ImageLock, source: str, log: Log) -> str:
    """Resolve `auto`: registries if all of the lock can be reached, otherwise Debian."""
    if source not in SOURCES:
        raise Problem(f"unknown image source {source!r}", fix=f"name one of: {', '.join(SOURCES)}")
    if source != "auto":
        return source
    unreachable = registries.unreachable(lock.hosts)
    if unreachable:
        log(f"using Debian packages for images: {', '.join(unreachable)} cannot be reached")
        return "debian"
    log("using registries for images")
    return "registry"


def _absent(lock: ImageLock, source: str) -> dict[str, dict[str, str]]:
    if source != "debian":
        return {}
    return {name: {"reason": pin.absent} for name, pin in lock.images.items() if pin.absent}


def drift(source: str, found: str, pin: Upstream) -> str | None:
    """Return how a version differs from its pin, or None."""
    wanted = pin.tag.removeprefix("v").partition("-")[0]
    upstream = found.rpartition(":")[2].rpartition("-")[0] or found
    upstream = upstream.partition("+")[0]
    return None if upstream == wanted else f"{source} {found}, pin {wanted}"


def _supply(
    lock: ImageLock, source: str, version: str, blobs: BlobCache, log: Log
) -> dict[str, _Supplied]:
    made = _from_registries if source == "registry" else _from_debian
    return made(lock, version, blobs, log)


def _from_debian(lock: ImageLock, version: str, blobs: BlobCache, log: Log) -> dict[str, _Supplied]:
    references: dict[str, str] = {}
    versions: dict[str, tuple[str, str | None]] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        bases = {suite: pool.submit(recipes.base, lock, suite, log) for suite in lock.suites}

        def make(pin: ImagePin) -> None:
            if pin.build:
                upstream, recipe = lock.bases[pin.build.base]
                base = recipes.make(lock, recipe, bases[recipe.base].result(), log)
                reference = app_image.make(lock, pin.build, base, log, version=version)
                probes.prove(reference, engine.image_id(reference) or "", pin)
                found = recipes.version_of(base, recipe)
                drifted = drift(f"debian {recipe.package}", found, upstream)
                versions[pin.name] = (version, drifted)
            else:
                recipe, upstream = _both(pin)
                reference = recipes.make(lock, recipe, bases[recipe.base].result(), log)
                probes.prove(reference, engine.image_id(reference) or "", pin)
                found = recipes.version_of(reference, recipe)
                versions[pin.name] = (found, drift("debian", found, upstream))
            engine.tag(reference, f"airlift/{pin.name}:debian")
            references[pin.name] = reference

        # Bases were submitted first, so that no task waits for one that cannot start.
        pending = [pool.submit(make, pin) for pin in lock.images.values() if not pin.absent]
        _all(pending)
    exported = export(list(references.values()), blobs, log)
    return {
        name: _Supplied(exported[reference], *versions[name])
        for name, reference in references.items()
    }


def _from_registries(
    lock: ImageLock, version: str, blobs: BlobCache, log: Log
) -> dict[str, _Supplied]:
    registries.require()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        pulls = {
            name: pool.submit(_proven_upstream, pin, blobs, log)
            for name, pin in lock.images.items()
            if pin.upstream
        }
        apps = {
            name: pool.submit(_app_on_upstream, lock, pin, version, blobs, log)
            for name, pin in lock.images.items()
            if pin.build
        }
        _all([*pulls.values(), *apps.values()])
    supplied: dict[str, _Supplied] = {}
    for name, pull in pulls.items():
        tag = lock.images[name].upstream
        supplied[name] = _Supplied(pull.result(), tag.tag.removeprefix("v") if tag else "", None)
    exported = export([app.result() for app in apps.values()], blobs, log)
    for name, app in apps.items():
        supplied[name] = _Supplied(exported[app.result()], version, None)
    return supplied


def _proven_upstream(pin: ImagePin, blobs: BlobCache, log: Log) -> Image:
    """Pull an image, and test it once in the engine."""
    if pin.upstream is None:
        raise AssertionError(pin.name)
    image = registries.pull(pin.upstream, blobs, log)
    if not probes.proven(image.config_digest, pin):
        with registries.loaded(pin.upstream, image, blobs) as reference:
            probes.prove(reference, image.config_digest, pin)
    return image


def _app_on_upstream(
    lock: ImageLock, pin: ImagePin, version: str, blobs: BlobCache, log: Log
) -> str:
    if pin.build is None:
        raise AssertionError(pin.name)
    upstream, _ = lock.bases[pin.build.base]
    base = registries.load(upstream, blobs, log)
    reference = app_image.make(lock, pin.build, base, log, version=version)
    probes.prove(reference, engine.image_id(reference) or "", pin)
    engine.tag(reference, f"airlift/{pin.name}:registry")
    return reference


def _write(layout: Path, supplied: Mapping[str, _Supplied], blobs: BlobCache) -> None:
    layout.mkdir(parents=True, exist_ok=True)
    write_layout(layout, {name: one.image for name, one in supplied.items()}, blobs)


def _component(lock: ImageLock, pin: ImagePin, one: _Supplied) -> dict[str, Any]:
    pinned = lock.bases[pin.build.base][0] if pin.build else pin.upstream
    return {
        "version": one.version,
        "repository": f"airlift/{pin.name}",
        "manifest_digest": one.image.manifest_digest,
        "config_digest": one.image.config_digest,
        "diff_ids": [layer.diff_id for layer in one.image.layers],
        "layers": [
            {"digest": layer.digest, "size": layer.size, "media_type": layer.media_type}
            for layer in one.image.layers
        ],
        "unpacked_size": one.image.unpacked_size,
        "pinned": str(pinned),
        "drift": one.drift,
        "probe": list(pin.probe),
    }


def _both(pin: ImagePin) -> tuple[Recipe, Upstream]:
    if pin.recipe is None or pin.upstream is None:
        raise AssertionError(pin.name)
    return pin.recipe, pin.upstream


def _all(pending: list[Future[Any]]) -> None:
    """Wait for all tasks; the first failure cancels those that have not begun."""
    try:
        for future in pending:
            future.result()
    except BaseException:
        for future in pending:
            future.cancel()
        raise
