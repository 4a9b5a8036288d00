"""Writes the members below `about/`, one part after the other.

They are for people and for other tools; no host needs them to run. They are the same in a release's
full bundle and in its deltas, so nothing here may depend on a delta's bases.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from bundle.builder import cache
from bundle.builder.about import (
    debian_tracker,
    inventory,
    licences,
    migrations,
    pip_audit,
    provenance,
    sbom,
    settings,
    vulnerabilities,
)
from bundle.builder.about.pip_audit import Audit
from bundle.builder.about.subject import Asked, Subject
from bundle.builder.release import Release
from bundle.review import dossier

NOT_ASKED = Audit(reason="this build did not ask pip-audit")


def ask(
    tree: Path, release: Release, signers: tuple[str, ...], data: Path | None, audit: bool
) -> Asked:
    """Check vulnerability data before any work, and start pip-audit in the background."""
    tracker = debian_tracker.load(data) if data else None
    if not audit:
        return Asked(signers, tracker)
    locks = {inventory.JUMP_HOST: "requirements/controller.txt", "app": "app/requirements.txt"}
    texts = {
        name: (tree / lock).read_text(encoding="utf-8")
        for name, lock in locks.items()
        if (tree / lock).is_file()
    }
    identity = [release.version, release.serial, release.revision, release.created]
    answer: Future[Audit] = Future()

    def work() -> None:
        try:
            answer.set_result(pip_audit.run(texts, identity))
        except Exception as error:
            # A failure of pip-audit must not fail a build.
            answer.set_result(Audit(reason=f"pip-audit failed: {error}"))

    # A daemon thread, so that a failed build does not wait for it.
    threading.Thread(target=work, daemon=True).start()
    return Asked(signers, tracker, answer)


def _sbom(subject: Subject, folder: Path) -> None:
    sbom.write(folder / "sbom", subject.release, subject.components, subject.inventory)


def _licences(subject: Subject, folder: Path) -> None:
    licences.write(folder, subject.tree, subject.inventory)


def _vulnerabilities(subject: Subject, folder: Path) -> None:
    audit = subject.asked.audit.result() if subject.asked.audit else NOT_ASKED
    vulnerabilities.write(folder, subject.inventory, subject.asked.tracker, audit)


def _provenance(subject: Subject, folder: Path) -> None:
    provenance.write(
        folder,
        tree=subject.tree,
        release=subject.release,
        image_source=subject.image_source,
        components=subject.components,
        inventory=subject.inventory,
    )


def _dossier(subject: Subject, folder: Path) -> None:
    release = subject.release
    data = {
        "version": release.version,
        "serial": release.serial,
        "created": release.created,
        "revision": release.revision,
        "upgrade": release.upgrade,
        "schema": release.schema,
        "architecture": subject.architecture,
        "image_source": subject.image_source,
        "components": subject.components,
        "absent": subject.absent,
    }
    signers = dossier.intended(subject.asked.signers)
    page = dossier.render(data, dossier.read_folder(folder, subject.tree), signers)
    (folder / dossier.NAME).write_text(page, encoding="utf-8")


# A function that writes its files into the folder of `about/`.
Part = Callable[[Subject, Path], None]
# The dossier is last, because it shows what the others wrote.
PARTS: tuple[Part, ...] = (
    settings.write,
    migrations.write,
    _sbom,
    _licences,
    _vulnerabilities,
    _provenance,
    _dossier,
)


def write(subject: Subject, folder: Path) -> dict[str, Path]:
    """Write all documents; return member path: file."""
    folder.mkdir(parents=True)
    for part in PARTS:
        part(subject, folder)
    cache.forget_unused(cache.root() / "about")
    return {
        f"about/{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
