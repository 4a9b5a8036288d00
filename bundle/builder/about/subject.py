"""The inputs of a release's documents."""

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
    """Inputs of the documents that are not part of the release."""

    # Lines of allowed_signers for the signers of this build.
    signers: tuple[str, ...] = ()
    tracker: Tracker | None = None
    # The result comes while the images are made.
    audit: Future[Audit] | None = None


@dataclass(frozen=True)
class Subject:
    """The only input of a document, which must depend on nothing else."""

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
        """Return the packages of every component."""
        found = {
            name: inventory.of_image(self.layout, component)
            for name, component in sorted(self.components.items())
        }
        found[inventory.JUMP_HOST] = inventory.of_wheels(self.wheels)
        found |= inventory.of_repositories(self.packages, systems.load(self.tree / systems.NAME))
        found[inventory.COLLECTIONS] = inventory.of_collections()
        return found
