"""`bundle build`: collect, sign, and write one tar."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.options import TREE, add_custody, add_keys, keys_of
from bundle.cli.parser import add_command
from bundle.cli.terminal import Narrator
from bundle.core.text import size, table
from bundle.format.delta import describe, facts


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "build",
        _build,
        about="Collects images, roles, wheels and packages. Writes one signed tar and its\n"
        "SHA256SUMS. The same tree and SOURCE_DATE_EPOCH give the same bytes. With\n"
        "--since it makes a delta, for sites that imported the named bundles.",
        examples=(
            "build --version 1.2.0 --key ~/.ssh/airlift_release",
            "build --since dist/airlift-1.1.0-amd64.tar --key release.pub",
        ),
    )
    one.add_argument(
        "--version",
        metavar="X.Y.Z",
        help="version of the release (default: the one in bundle/release.yml)",
    )
    one.add_argument(
        "--serial",
        type=int,
        metavar="N",
        help="rising number of the release, which blocks downgrades (default: the one in "
        "bundle/release.yml)",
    )
    one.add_argument(
        "--source",
        choices=["auto", "registry", "debian"],
        help="source of the images: pulled from registries, built from Debian packages, or "
        "`auto`, whichever can be reached from here (default: the one in bundle/release.yml)",
    )
    one.add_argument(
        "--allow-absent",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="accept a bundle without these, such as grafana or packages-rhel-9; `all` accepts "
        "whatever is unavailable here (default: those that bundle/release.yml names)",
    )
    one.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("dist"),
        metavar="DIR",
        help="directory for the bundle and its SHA256SUMS (default: dist)",
    )
    one.add_argument(
        "--allow-dirty",
        action="store_true",
        help="include files with changes that are not committed, and new files",
    )
    one.add_argument(
        "--since",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="BUNDLE",
        help="make a delta based on these earlier bundles, which every receiving site has "
        "imported, or on the receipts of sites; see docs/DELTAS.md (default: a full bundle)",
    )
    one.add_argument(
        "--receipt-signers",
        type=Path,
        metavar="FILE",
        help="list of sites whose signed receipts are accepted, in the form of allowed_signers; "
        "needed with receipts only",
    )
    one.add_argument(
        "--vulnerability-data",
        type=Path,
        metavar="FILE|DIR",
        help="published JSON of Debian's security tracker, to scan Debian packages with; see "
        "docs/SBOM.md (default: they are reported as not scanned)",
    )
    add_keys(one)
    add_custody(one)


def _build(arguments: argparse.Namespace) -> Answer:
    from bundle.builder import build, suppliers  # noqa: PLC0415 - needs PyYAML and an engine

    start = time.monotonic()
    built = build.build(
        build.Options(
            tree=TREE,
            out=arguments.output,
            keys=keys_of(arguments),
            identity=arguments.identity,
            version=arguments.version,
            serial=arguments.serial,
            source=arguments.source,
            allow_absent=tuple(arguments.allow_absent),
            since=tuple(arguments.since),
            receipt_signers=arguments.receipt_signers,
            vulnerability_data=arguments.vulnerability_data,
            audit=True,
            allow_dirty=arguments.allow_dirty,
        ),
        suppliers.Real(),
        log=Narrator(),
    )
    absent = built.manifest.data["absent"]
    rows = [
        ("bundle", str(built.path)),
        ("size", size(built.path.stat().st_size)),
        *([("delta", describe(built.manifest))] if built.manifest.bases else []),
        ("sha256", built.sha256),
        *([("absent", ", ".join(sorted(absent)))] if absent else []),
        ("time", f"{time.monotonic() - start:.1f} s"),
    ]
    lines = "\n".join(f"  {line}" for line in built.allowed_signers)
    return Answer(
        f"airlift {built.manifest.version}, serial {built.manifest.serial}\n{table(rows)}\n\n"
        f"Clients need this in allowed_signers, sent through a separate channel:\n{lines}",
        {
            "bundle": str(built.path),
            "bytes": built.path.stat().st_size,
            "bundle_bytes": built.path.stat().st_size,
            "elapsed_seconds": round(time.monotonic() - start, 3),
            "version": built.manifest.version,
            "serial": built.manifest.serial,
            "delta": facts(built.manifest),
            "sha256": built.sha256,
            "absent": sorted(absent),
            "manifest_sha256": built.manifest_sha256,
            "allowed_signers": list(built.allowed_signers),
            "notes": list(built.notes),
        },
    )
