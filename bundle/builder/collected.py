"""What the image sources hand over, beside the OCI layout that they filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Collected:
    """What a bundle's manifest says of its images, and of what is absent."""

    #: `debian` or `registry`.
    image_source: str
    #: The manifest's components.
    components: dict[str, dict[str, Any]]
    #: What is absent, with the reason: images here, then what else a bundle lacks.
    absent: dict[str, dict[str, str]]
