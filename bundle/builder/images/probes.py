"""Starts each image once where it is built, so that a moved program fails at the vendor."""

from __future__ import annotations

from pathlib import Path

from bundle.builder import cache
from bundle.builder.images import engine
from bundle.builder.images.lockfile import ImagePin


def proven(identity: str, pin: ImagePin) -> bool:
    """Return whether exactly this image passed exactly this probe before."""
    return _note(identity, pin).exists()


def prove(reference: str, identity: str, pin: ImagePin) -> None:
    """Run the pin's probe as the product does: no network, read-only, as the pinned user."""
    if proven(identity, pin):
        return
    engine.try_run(reference, list(pin.probe), user=pin.user)
    cache.write_json(_note(identity, pin), {"image": reference, "probe": list(pin.probe)})


def _note(identity: str, pin: ImagePin) -> Path:
    return cache.root() / "probed" / f"{cache.key([identity, pin.probe, pin.user])}.json"
