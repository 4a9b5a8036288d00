"""`bundle image`: build the product's own image alone."""

from __future__ import annotations

import argparse
import sys

from bundle.cli.answer import Answer
from bundle.cli.options import TREE
from bundle.cli.parser import add_command


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command to the parser."""
    one = add_command(
        commands,
        "image",
        _image,
        about="For work on the service: the image is in this machine's engine afterwards.",
        examples=("image app --tag airlift/app:dev",),
    )
    one.add_argument("name", help="such as app")
    one.add_argument("--tag", required=True)
    one.add_argument("--source", choices=["auto", "registry", "debian"], default="auto")


def _image(arguments: argparse.Namespace) -> Answer:
    from bundle.builder import suppliers  # noqa: PLC0415 - needs PyYAML and an engine

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    lock = TREE / "bundle" / "images.lock.yml"
    suppliers.app_image(lock, arguments.name, arguments.source, arguments.tag, log)
    return Answer(arguments.tag, {"image": arguments.tag})
