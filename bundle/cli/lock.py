"""`bundle lock`: update the image lock from the registries."""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.options import TREE
from bundle.cli.parser import add_command
from bundle.core.text import table


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "lock",
        _lock,
        about="Queries the registries for each tag of bundle/images.lock.yml, and writes digest\n"
        "and platforms there. Comments stay. With --check it writes nothing, and a tag\n"
        "that names another image now is an error.",
        examples=("lock --check", "lock nginx redis"),
    )
    one.add_argument(
        "names", nargs="*", metavar="IMAGE", help="images to query (default: all in the lock)"
    )
    one.add_argument(
        "--check", action="store_true", help="write nothing; fail if a tag names another image"
    )
    one.add_argument(
        "--file",
        type=Path,
        default=TREE / "bundle" / "images.lock.yml",
        metavar="FILE",
        help="image lock to read and update (default: bundle/images.lock.yml of this tree)",
    )


def _lock(arguments: argparse.Namespace) -> Answer:
    from bundle.builder.images import relock  # noqa: PLC0415 - needs libraries that only a builder has

    path: Path = arguments.file
    found = relock.ask(path, arguments.names)
    if arguments.check:
        relock.refuse_moved(found, path)
    else:
        relock.write(path, found)
    rows = [(one.name, one.pinned.tag, one.digest[:19], one.news or "as locked") for one in found]
    last = "every tag names the locked image" if arguments.check else f"written to {path}"
    return Answer(
        f"{table(rows, ['image', 'tag', 'digest', 'state'])}\n\n{last}",
        {"file": str(path), "images": [one.as_dict() for one in found]},
    )
