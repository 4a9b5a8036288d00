"""The result of the image sources, in addition to the OCI layout that they fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Collected:
    """The images and absent parts of a bundle, as its manifest lists them."""

    #: `debian` or `registry`.
    image_source: str
    #: The manifest's components.
    components: dict[str, dict[str, Any]]
    #: Absent parts with their reasons: first images, then others.
    absent: dict[str, dict[str, str]]
