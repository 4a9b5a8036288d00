"""Every command: the role that needs it, what it does in one line, and its module.

A module is loaded only when its command runs: loading all of them takes longer than checking a
small bundle.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

COURIER, OPERATOR, ENGINEER, ANYBODY = "courier", "operator", "engineer", "anybody"
ROLES = {
    COURIER: "courier and security officer, who carry and check",
    OPERATOR: "operator, who imports on the jump host",
    ENGINEER: "release engineer, who builds online",
    ANYBODY: "anybody",
}


class Command(NamedTuple):
    """What the first page of help says of a command, before its module is loaded."""

    role: str
    text: str
    #: Its `register` adds the command to a parser.
    module: str
    #: Whether `verify.pyz` offers it as well.
    carried: bool = False


#: By name, in the order of the first page of help.
COMMANDS = {
    "verify": Command(
        COURIER, "check signatures and every byte; write nothing", "bundle.cli.verify", carried=True
    ),
    "inspect": Command(
        COURIER, "show what is inside; do not hash members", "bundle.cli.inspect", carried=True
    ),
    "import": Command(
        OPERATOR,
        "verify, store, and make the release current",
        "bundle.cli.import_release",
        carried=True,
    ),
    "exit-codes": Command(
        ANYBODY, "list what each exit code means", "bundle.cli.exit_codes", carried=True
    ),
    "build": Command(ENGINEER, "build and sign a bundle", "bundle.cli.build"),
    "dossier": Command(
        COURIER,
        "write one offline page: signers, contents, changes",
        "bundle.cli.dossier",
    ),
    "sign": Command(ENGINEER, "add another signer's signature to a bundle", "bundle.cli.sign"),
    "split": Command(
        COURIER, "write a bundle in parts that a FAT32 drive can hold", "bundle.cli.split"
    ),
    "join": Command(COURIER, "make a bundle file from its parts", "bundle.cli.join"),
    "image": Command(ENGINEER, "build the product's own image alone", "bundle.cli.image"),
    "lock": Command(ENGINEER, "update the image lock from the registries", "bundle.cli.lock"),
    "receipt": Command(
        OPERATOR, "sign a list of what this jump host has, for a small delta", "bundle.cli.receipt"
    ),
    "diff": Command(
        COURIER,
        "show what changes between two releases, and the bytes to carry",
        "bundle.cli.diff",
    ),
    "prune": Command(
        OPERATOR, "remove releases and blobs that no kept release needs", "bundle.cli.prune"
    ),
    "state": Command(
        OPERATOR, "save or restore what only this jump host has, encrypted", "bundle.cli.state"
    ),
    "serve": Command(OPERATOR, "serve the store as a registry on loopback", "bundle.cli.serve"),
    "completion": Command(
        ANYBODY, "print a completion script for a shell", "bundle.cli.completion"
    ),
}


def here() -> dict[str, Command]:
    """Return the commands that this copy of the program offers; `verify.pyz` has only a few."""
    whole = find_spec("bundle.builder") is not None
    return {name: one for name, one in COMMANDS.items() if whole or one.carried}
