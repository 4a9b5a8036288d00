"""`bundle image`: build the product's own image alone."""

from __future__ import annotations

import argparse
import sys

from bundle.cli.answer import Answer
from bundle.cli.options import TREE
from bundle.cli.parser import add_command


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "image",
        _image,
        about="For work on the service. Afterwards this machine's container engine has the\nimage.",
        examples=("image app --tag airlift/app:dev",),
    )
    one.add_argument("name", help="image of this tree, such as app")
    one.add_argument(
        "--tag",
        required=True,
        metavar="NAME:TAG",
        help="name and tag of the image in this machine's container engine",
    )
    one.add_argument(
        "--source",
        choices=["auto", "registry", "debian"],
        default="auto",
        help="source of the base image: pulled from its registry, built from Debian packages, or "
        "whichever can be reached from here (default: auto)",
    )


def _image(arguments: argparse.Namespace) -> Answer:
    from bundle.builder import suppliers  # noqa: PLC0415 - needs PyYAML and an engine

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    lock = TREE / "bundle" / "images.lock.yml"
    suppliers.app_image(lock, arguments.name, arguments.source, arguments.tag, log)
    return Answer(arguments.tag, {"image": arguments.tag})
