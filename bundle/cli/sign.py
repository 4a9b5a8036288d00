"""`bundle sign`: add another signer's signature to a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.options import add_keys, keys_of
from bundle.cli.parser import add_command


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "sign",
        _sign,
        about="For clients that require signatures by several keys. Checks every byte first. A\n"
        "signer without access to the bundle signs its manifest.json elsewhere.",
        examples=(
            "sign dist/airlift-1.2.0-amd64.tar --key ~/.ssh/second_signer",
            "sign dist/airlift-1.2.0-amd64.tar --signature manifest.json.sig",
        ),
    )
    one.add_argument("bundle", type=Path, help="bundle file, which gets the signature")
    one.add_argument(
        "--signature",
        type=Path,
        metavar="FILE",
        help="signature to add that was made elsewhere, with: ssh-keygen -Y sign -n "
        "airlift-bundle -f KEY manifest.json",
    )
    add_keys(one)


def _sign(arguments: argparse.Namespace) -> Answer:
    from bundle.builder import countersign  # noqa: PLC0415

    keys = keys_of(arguments)
    total = countersign.add(
        arguments.bundle,
        key=keys[0] if keys else None,
        signature=arguments.signature,
    )
    sums = (
        "SHA256SUMS beside it was written again and signed with this key only"
        if keys
        else "SHA256SUMS beside it is outdated: `sign` with a key writes it again"
    )
    return Answer(
        f"{arguments.bundle} has {total} signatures now; {sums}",
        {"bundle": str(arguments.bundle), "signatures": total},
    )
