"""What the documents of a release are made of."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bundle.builder.about import inventory
from bundle.builder.about.debian_tracker import Tracker
from bundle.builder.about.inventory import Contents
from bundle.builder.about.pip_audit import Audit
from bundle.builder.hosts import systems
from bundle.builder.release import Release


@dataclass(frozen=True)
class Asked:
    """What the caller of a build gave beside the release itself."""

    # Lines of allowed_signers: who is to sign.
    signers: tuple[str, ...] = ()
    tracker: Tracker | None = None
    # Filled in while the images are made.
    audit: Future[Audit] | None = None


@dataclass(frozen=True)
class Subject:
    """All that a part may look at; whatever it writes follows from this alone."""

    tree: Path
    release: Release
    architecture: str
    image_source: str
    # The manifest's, by name.
    components: dict[str, dict[str, Any]]
    absent: dict[str, dict[str, str]]
    # OCI layout with the blobs of all images.
    layout: Path
    wheels: Path
    # A folder for each operating system.
    packages: Path
    asked: Asked = field(default_factory=Asked)

    @cached_property
    def inventory(self) -> dict[str, Contents]:
        """The packages of every component."""
        found = {
            name: inventory.of_image(self.layout, component)
            for name, component in sorted(self.components.items())
        }
        found[inventory.JUMP_HOST] = inventory.of_wheels(self.wheels)
        found |= inventory.of_repositories(self.packages, systems.load(self.tree / systems.NAME))
        found[inventory.COLLECTIONS] = inventory.of_collections()
        return found
