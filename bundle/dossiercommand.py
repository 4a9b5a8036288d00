"""`bundle dossier`: the page about a release, from any bundle, with the signers that were found."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bundle import manifest, verify
from bundle.cli import Answer, add_command, add_trust, home_of, required_trust
from bundle.report import size
from bundle.store import write_atomic
from bundle.usage import COURIER


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "dossier",
        _dossier,
        "one offline page: who signed, what is inside, what changed",
        role=COURIER,
        about="For a security officer, before a release is used. The manifest is authenticated\n"
        "and the members that the page shows are hashed; `verify` checks the rest.",
        examples=(
            "dossier airlift-1.1.0-amd64.tar --previous airlift-1.0.0-amd64.tar -o dossier.html",
        ),
    )
    one.add_argument("bundle", type=Path, help="bundle file")
    one.add_argument(
        "--previous", type=Path, metavar="BUNDLE", help="the release before, to show what changed"
    )
    one.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="default: airlift-VERSION-dossier.html in this directory",
    )
    add_trust(one)


def _dossier(arguments: argparse.Namespace) -> Answer:
    from bundle import changes, dossier  # noqa: PLC0415 - needs Jinja2

    home = home_of(arguments)
    trust = required_trust(arguments, home)
    before: tuple[dict[str, Any], dossier.About] | None = None
    if arguments.previous:
        # Older than what was accepted here, as it should be: the history is not asked.
        with verify.opened(arguments.previous, trust=trust, home=None) as old:
            before = old.manifest.data, dossier.read_bundle(old)
    with verify.opened(arguments.bundle, trust=trust, home=None) as bundle:
        assert bundle.verdict is not None  # noqa: S101 - `opened` was given a trust
        data, about = bundle.manifest.data, dossier.read_bundle(bundle)
        signed = dossier.verified(bundle.verdict)
        version = bundle.manifest.version
    changed = changes.compare(*before, data, about) if before else None
    page = dossier.render(data, about, signed, changes=changed).encode("utf-8")
    path = arguments.output or Path(f"{manifest.PRODUCT}-{version}-dossier.html")
    write_atomic(path, page)
    names = ", ".join(row["identity"] for row in signed.rows)
    return Answer(
        f"{path}: airlift {version}, signed by {names}; {size(len(page))}",
        {
            "page": str(path),
            "bytes": len(page),
            "version": version,
            "signers": list(signed.rows),
            "changes": changed,
        },
    )
