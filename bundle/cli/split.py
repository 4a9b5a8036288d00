"""`bundle split`: write a bundle in parts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bundle.carry import split
from bundle.cli.answer import Answer
from bundle.cli.options import add_custody
from bundle.cli.parser import add_command
from bundle.cli.terminal import Narrator, Progress, file_size
from bundle.core.text import plural, size, table
from bundle.jumphost.store import DEFAULT_HOME

SIZE = "3900M"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "split",
        _split,
        about="Writes parts such as airlift-1.0.0-amd64.tar.part-01, and their index\n"
        "airlift-1.0.0-amd64.tar.parts, which verify, import and join read.",
        examples=("split dist/airlift-1.0.0-amd64.tar -o /media/usb",),
    )
    one.add_argument("bundle", type=Path, help="bundle file; it is not changed")
    one.add_argument(
        "--size",
        type=_size,
        default=split.parse_size(SIZE),
        metavar="SIZE",
        help="size of a part, in bytes or with k, M or G (decimal); FAT32 holds files below "
        f"4.29 GB (default: {SIZE})",
    )
    one.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="directory for the parts and their index (default: beside the bundle)",
    )
    one.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="private key to sign the index with (default: the file that AIRLIFT_SIGNING_KEY "
        "names; without one the index is not signed)",
    )
    add_custody(one)


def _size(text: str) -> int:
    try:
        return split.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _split(arguments: argparse.Namespace) -> Answer:
    out = arguments.output or arguments.bundle.parent
    given = arguments.key or os.environ.get("AIRLIFT_SIGNING_KEY")
    # Every byte is verified, written, and read again.
    progress = Progress("splitting", 3 * file_size(arguments.bundle))
    index = split.split(
        arguments.bundle,
        size=arguments.size,
        out=out,
        key=Path(given).expanduser() if given else None,
        log=Narrator(progress),
        progress=progress,
    )
    progress.finish()
    rows = [(part.name, size(part.size), part.sha256) for part in index.parts]
    rows.append((index.bundle.name, size(index.bundle.size), index.bundle.sha256))
    place = out / index.name
    signed = "signed" if given else "not signed: no key was given"
    return Answer(
        f"{plural(len(index.parts), 'part')} in {out}, index {signed}\n"
        f"{table(rows, ['file', 'size', 'sha256'])}\n\n"
        f"Carry {index.bundle.name}.* together to the jump host, where import reads the parts.\n\n"
        f"Next:\n  {DEFAULT_HOME}/current/venv/bin/python -m bundle import DRIVE/{index.name}",
        {
            "index": str(place),
            "signed": bool(given),
            "bundle_bytes": index.bundle.size,
            **index.as_dict(),
        },
    )
