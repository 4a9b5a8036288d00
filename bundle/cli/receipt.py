"""`bundle receipt`: sign a list of what this jump host has."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.options import add_home, home_of
from bundle.cli.parser import add_command
from bundle.cli.terminal import Progress
from bundle.core.output import check_replaces
from bundle.core.text import table
from bundle.jumphost import receipt


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "receipt",
        _receipt,
        about="Lists the files of imported releases that this jump host has, and signs the\n"
        "list with a key of the site. The vendor needs it to make the next bundle small:\n"
        "build --since site-receipt.json --receipt-signers FILE. Changes nothing here.",
        examples=("receipt -o /media/usb/acme.json --key ~/.ssh/receipt",),
    )
    add_home(one)
    one.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("site-receipt.json"),
        metavar="FILE",
        help="file for the list (default: site-receipt.json); the signature is FILE.sig; carry "
        "both",
    )
    one.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the site's private key, or a .pub whose key is in ssh-agent (default: the file that "
        "AIRLIFT_RECEIPT_KEY names)",
    )
    one.add_argument(
        "--hash",
        action="store_true",
        help="hash every file (default: only check that it exists in full length)",
    )


def _receipt(arguments: argparse.Namespace) -> Answer:
    key = arguments.key or next(
        (Path(value) for value in [os.environ.get("AIRLIFT_RECEIPT_KEY")] if value), None
    )
    check_replaces(arguments.output, receipt.BEGINNING, "receipt")
    progress = Progress("hashing")
    try:
        made, notes = receipt.take(home_of(arguments), contents=arguments.hash, progress=progress)
    finally:
        progress.finish()
    line = receipt.write(made, arguments.output, key.expanduser() if key else None)
    releases = [{**release, "members": len(release["members"])} for release in made["releases"]]
    rows = [
        (f"release {release['version']}", f"serial {release['serial']}, {release['members']} files")
        for release in releases
    ]
    rows += [("not listed", note) for note in notes]
    signature = receipt.signature_of(arguments.output)
    return Answer(
        f"{arguments.output} and {signature.name}: what {made['host']} has, signed\n{table(rows)}\n"
        "\nThe vendor needs this in --receipt-signers, sent through a separate channel:\n"
        f"  {line}",
        {
            "receipt": str(arguments.output),
            "signature": str(signature),
            "host": made["host"],
            "created": made["created"],
            "hashed": made["hashed"],
            "releases": releases,
            "not_listed": notes,
            "allowed_signers": line,
        },
    )
