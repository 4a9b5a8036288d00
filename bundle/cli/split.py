"""`bundle split`: write a bundle in parts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bundle.carry import split
from bundle.cli.answer import Answer
from bundle.cli.options import add_custody
from bundle.cli.parser import add_command
from bundle.cli.terminal import Narrator, Progress
from bundle.core.text import plural, size, table
from bundle.jumphost.store import DEFAULT_HOME

SIZE = "3900M"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command to the parser."""
    one = add_command(
        commands,
        "split",
        _split,
        about="Parts such as airlift-1.0.0-amd64.tar.part-01, and their index\n"
        "airlift-1.0.0-amd64.tar.parts, which verify, import and join take.",
        examples=("split dist/airlift-1.0.0-amd64.tar -o /media/usb",),
    )
    one.add_argument("bundle", type=Path, help="bundle file; it stays as it is")
    one.add_argument(
        "--size",
        type=_size,
        default=split.parse_size(SIZE),
        help="of a part, in bytes or with k, M or G (thousands, decimal); FAT32 holds files below "
        f"4 GiB (default: {SIZE})",
    )
    one.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: beside the bundle")
    one.add_argument(
        "--key",
        type=Path,
        help="signs the index (default: AIRLIFT_SIGNING_KEY; without one the index is not signed)",
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
    progress = Progress("splitting")
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
    signed = "signed" if given else "not signed: there was no key"
    return Answer(
        f"{plural(len(index.parts), 'part')} in {out}, index {signed}\n"
        f"{table(rows, ['file', 'size', 'sha256'])}\n\n"
        f"Carry {index.bundle.name}.* together. On the jump host, import reads the parts:\n"
        f"  {DEFAULT_HOME}/current/venv/bin/python -m bundle import STICK/{index.name}",
        {"index": str(place), "signed": bool(given), **index.as_dict()},
    )
