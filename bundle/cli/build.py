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
    """Add this command to the parser."""
    one = add_command(
        commands,
        "build",
        _build,
        about="Collects images, roles, wheels and packages, and writes one signed tar and its\n"
        "SHA256SUMS. The same tree and SOURCE_DATE_EPOCH give the same bytes. A delta,\n"
        "with --since, is for clients that imported those bundles.",
        examples=(
            "build --version 1.2.0 --key ~/.ssh/airlift_release",
            "build --since dist/airlift-1.1.0-amd64.tar --key release.pub",
        ),
    )
    one.add_argument("--version", help="default: the one in bundle/release.yml")
    one.add_argument("--serial", type=int, help="default: the one in bundle/release.yml")
    one.add_argument(
        "--source",
        choices=["auto", "registry", "debian"],
        help="where the images come from: pulled from registries, built from packages, or what "
        "can be reached from here (default: the one in bundle/release.yml)",
    )
    one.add_argument(
        "--allow-absent",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="let the bundle lack these, such as grafana or packages-rhel-9, or all that cannot "
        "be had here; a build that would lack anything else is refused",
    )
    one.add_argument("-o", "--output", type=Path, default=Path("dist"), metavar="DIR")
    one.add_argument(
        "--allow-dirty",
        action="store_true",
        help="let files travel that are changed or new and not committed",
    )
    one.add_argument(
        "--since",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="BUNDLE",
        help="make a delta, without what these earlier bundles have, for sites that imported all "
        "of them; or without what the receipts of sites list (docs/DELTAS.md); a full bundle is "
        "made without this option",
    )
    one.add_argument(
        "--receipt-signers",
        type=Path,
        metavar="FILE",
        help="who may sign receipts, in the form of allowed_signers, got from the sites",
    )
    one.add_argument(
        "--vulnerability-data",
        type=Path,
        metavar="FILE|DIR",
        help="the JSON that Debian's security tracker publishes: packages of Debian are matched "
        "with it (docs/SBOM.md); without it they are reported as not scanned",
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
        f"Clients need in allowed_signers, sent another way than the bundle:\n{lines}",
        {
            "bundle": str(built.path),
            "bytes": built.path.stat().st_size,
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
