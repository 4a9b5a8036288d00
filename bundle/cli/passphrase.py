"""A passphrase: typed on the terminal, or read from a file; never an argument or a variable."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

from bundle.core.failures import doing
from bundle.core.files import open_regular
from bundle.errors import AirliftError, Kind
from bundle.jumphost.sealed import SHORTEST

_LONGEST = 4096


def add_passphrase(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the file."""
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="file whose first line is the passphrase, for its owner only; - is the standard "
        "input (default: ask on the terminal)",
    )


def passphrase_of(arguments: argparse.Namespace, *, new: bool = False) -> bytes:
    """Return the passphrase; a new one is asked for twice, and must be hard to guess."""
    path: Path | None = arguments.passphrase_file
    if path is None:
        typed = _typed(new=new)
    elif str(path) == "-":
        typed = _first_line(sys.stdin.buffer.readline(_LONGEST))
    else:
        typed = _read(path)
    if not typed or (new and len(typed) < SHORTEST):
        raise AirliftError(
            Kind.USAGE,
            f"the passphrase has {len(typed)} characters, but at least {SHORTEST} are needed",
            where=str(path or "terminal"),
            fix="make one with `openssl rand -hex 16`, and keep it in the client's safe",
        )
    return typed.encode()


def _typed(*, new: bool) -> str:
    try:
        # Without a terminal, getpass would read the standard input and show what is typed.
        Path("/dev/tty").open("rb").close()
    except OSError as error:
        raise AirliftError(
            Kind.USAGE,
            "there is no terminal to ask for the passphrase",
            fix="add --passphrase-file FILE, or --passphrase-file - to read the standard input",
        ) from error
    typed = getpass.getpass("Passphrase of the saved state: ")
    if new and getpass.getpass("The same passphrase again: ") != typed:
        raise AirliftError(
            Kind.USAGE, "the two passphrases differ", fix="run the same command again"
        )
    return typed


def _read(path: Path) -> str:
    with doing("read", path), open_regular(path, _LONGEST, links=True) as stream:
        if os.fstat(stream.fileno()).st_mode & 0o077:
            raise AirliftError(
                Kind.FILE,
                "others can read the file of the passphrase",
                where=str(path),
                fix=f"chmod 600 {path}, and change the passphrase if somebody may have read it",
            )
        return _first_line(stream.readline())


def _first_line(raw: bytes) -> str:
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise AirliftError(Kind.USAGE, "the passphrase is not text in UTF-8") from error
