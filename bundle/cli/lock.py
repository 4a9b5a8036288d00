"""`bundle lock`: write what the locked tags name now."""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.options import TREE
from bundle.cli.parser import add_command
from bundle.core.text import table


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command to the parser."""
    one = add_command(
        commands,
        "lock",
        _lock,
        about="Asks the registries what each tag of bundle/images.lock.yml names, and writes\n"
        "digest and platforms there; comments stay. With --check nothing is written, and\n"
        "a tag that has moved is an error.",
        examples=("lock --check", "lock nginx redis"),
    )
    one.add_argument("names", nargs="*", metavar="IMAGE", help="these only (default: all)")
    one.add_argument(
        "--check", action="store_true", help="write nothing; fail when a tag has moved"
    )
    one.add_argument("--file", type=Path, default=TREE / "bundle" / "images.lock.yml")


def _lock(arguments: argparse.Namespace) -> Answer:
    from bundle.builder.images import relock  # noqa: PLC0415 - needs libraries that only a builder has

    path: Path = arguments.file
    found = relock.ask(path, arguments.names)
    if arguments.check:
        relock.refuse_moved(found, path)
    else:
        relock.write(path, found)
    rows = [(one.name, one.pinned.tag, one.digest[:19], one.news or "as locked") for one in found]
    last = "every tag names what is locked" if arguments.check else f"written to {path}"
    return Answer(
        f"{table(rows, ['image', 'tag', 'digest', 'news'])}\n\n{last}",
        {"file": str(path), "images": [one.as_dict() for one in found]},
    )
