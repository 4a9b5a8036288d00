"""`bundle sign`: add another signer's signature."""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.options import add_keys, keys_of
from bundle.cli.parser import add_command


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command to the parser."""
    one = add_command(
        commands,
        "sign",
        _sign,
        about="For clients that ask for signatures by several keys. Every byte is checked\n"
        "first. Whoever may not have the whole bundle signs its manifest.json elsewhere.",
        examples=(
            "sign dist/airlift-1.2.0-amd64.tar --key ~/.ssh/second_signer",
            "sign dist/airlift-1.2.0-amd64.tar --signature manifest.json.sig",
        ),
    )
    one.add_argument("bundle", type=Path)
    one.add_argument(
        "--signature",
        type=Path,
        metavar="FILE",
        help="made elsewhere: ssh-keygen -Y sign -n airlift-bundle -f KEY manifest.json",
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
        "SHA256SUMS beside it is new, and signed with this key only"
        if keys
        else "SHA256SUMS beside it fits no more: a `sign` with a key writes it again"
    )
    return Answer(
        f"{arguments.bundle} has {total} signatures now; {sums}",
        {"bundle": str(arguments.bundle), "signatures": total},
    )
