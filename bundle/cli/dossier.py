"""`bundle dossier`: write the page about a release, with the signers that were verified."""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.options import add_trust, home_of, required_trust
from bundle.cli.parser import add_command
from bundle.core.files import write_atomic
from bundle.core.output import check_replaces, writes_to
from bundle.core.text import size
from bundle.format import manifest
from bundle.format.delta import describe
from bundle.jumphost import installed
from bundle.review import diff, inspect
from bundle.verify import checks

_BEGINNING = b"<!DOCTYPE html>"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "dossier",
        _dossier,
        about="For a security officer, before a release is used. Authenticates the manifest and\n"
        "hashes the members that the page shows; `verify` checks all others.",
        examples=(
            "dossier airlift-1.1.0-amd64.tar --previous airlift-1.0.0-amd64.tar -o dossier.html",
            "dossier airlift-1.1.0-amd64.tar --previous /opt/airlift/current",
        ),
    )
    one.add_argument(
        "bundle", type=Path, help="bundle file, the index of its parts, or an imported release"
    )
    one.add_argument(
        "--previous",
        type=Path,
        metavar="BUNDLE|DIR",
        help="previous release, to show what changed: a bundle or an imported release",
    )
    one.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="file for the page (default: airlift-VERSION-dossier.html in this directory)",
    )
    add_trust(one)


def _dossier(arguments: argparse.Namespace) -> Answer:
    from bundle.review import dossier  # noqa: PLC0415 - needs Jinja2

    home = home_of(arguments)
    trust = required_trust(arguments, home)
    if arguments.output:
        check_replaces(arguments.output, _BEGINNING, "dossier")
    changes = None
    if arguments.previous:
        sides = [
            diff.load(path, trust=trust, home=home)
            for path in (arguments.previous, arguments.bundle)
        ]
        changes = diff.compare(*sides)
    if arguments.bundle.is_dir():
        release = installed.known(arguments.bundle, trust=trust, home=home)
        subject, about = inspect.of_release(release), dossier.read_release(release, home)
    else:
        with checks.opened(arguments.bundle, trust=trust, home=home, to_use=False) as bundle:
            subject, about = inspect.of_bundle(bundle), dossier.read_bundle(bundle)
    assert subject.verdict is not None  # noqa: S101 - there is a trust
    signed = dossier.verified(subject.verdict, subject.sha256)
    # An imported release has what its delta omitted.
    carried = not arguments.bundle.is_dir() and subject.manifest.bases
    left_out = describe(subject.manifest) if carried else ""
    data, version = subject.manifest.data, subject.manifest.version
    page = dossier.render(data, about, signed, changes=changes, delta=left_out).encode("utf-8")
    path = arguments.output or Path(f"{manifest.PRODUCT}-{version}-dossier.html")
    with writes_to(path, continues=False):
        write_atomic(path, page)
    names = ", ".join(row["identity"] for row in signed.rows)
    return Answer(
        f"{path}: airlift {version}, signed by {names}; {size(len(page))}\n"
        "Images and most other members were not hashed: verify does that.",
        {
            "page": str(path),
            "bytes": len(page),
            "page_bytes": len(page),
            "version": version,
            "signers": list(signed.rows),
            "manifest_sha256": signed.manifest_sha256,
            "changes": changes,
        },
    )
