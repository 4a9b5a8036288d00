"""`bundle join`: make a bundle file from its parts."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from bundle.carry import join
from bundle.cli.answer import Answer
from bundle.cli.options import add_custody, add_trust, home_of, trust_of
from bundle.cli.parser import add_command
from bundle.cli.terminal import Narrator, Progress
from bundle.core.text import plural, size, table
from bundle.errors import AirliftError
from bundle.format.parts import index_of, read_index
from bundle.trust.sshsig import Signer, Trust
from bundle.verify.checks import opened


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "join",
        _join,
        about="Checks each part. If it is interrupted, the same command continues. Import does\n"
        "not need it: it reads the parts themselves.",
        examples=("join /media/usb/airlift-1.0.0-amd64.tar.parts -o /srv",),
    )
    one.add_argument(
        "bundle",
        type=Path,
        nargs="+",
        metavar="PART",
        help="parts, or their index; if they are on several drives, name one part of each drive",
    )
    one.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="directory for the bundle (default: this directory)",
    )
    add_trust(one)
    add_custody(one)


def _length(paths: list[Path]) -> int:
    """Return how much there is to read, if an index says so; a bad one is refused later."""
    for index in filter(None, map(index_of, paths)):
        with suppress(AirliftError):
            return read_index(index).bundle.size
    return 0


def _signers_of(bundle: Path, trust: Trust | None) -> tuple[Signer, ...]:
    """Return who signed the bundle itself, which counts even if nobody signed the index."""
    if trust is None:
        return ()
    with opened(bundle, trust=trust, home=None) as found:
        assert found.verdict is not None  # noqa: S101 - `opened` was given a trust
        return found.verdict.signers


def _join(arguments: argparse.Namespace) -> Answer:
    progress = Progress("joining", _length(arguments.bundle))
    trust = trust_of(arguments, home_of(arguments))
    done = join.join(
        arguments.bundle,
        out=arguments.output,
        trust=trust,
        log=Narrator(progress),
        progress=progress,
    )
    progress.finish()
    index_signers = done.verdict.signers if done.verdict else ()
    signers = _signers_of(done.path, trust)
    rows = [
        ("bundle", str(done.path)),
        ("size", size(done.index.bundle.size)),
        ("sha256", done.index.bundle.sha256),
        *(("index signed by", str(signer)) for signer in index_signers),
        *(("signed by", str(signer)) for signer in signers),
    ]
    left = "Its members are not checked against its manifest yet: verify or import does that."
    if trust is None:
        left = "The signers of the bundle are not checked yet: verify or import does that."
    head = f"{plural(len(done.index.parts), 'part')} joined; length and SHA-256 match the index"
    return Answer(
        f"{head}\n{table(rows)}\n\n{left}",
        {
            "bundle": str(done.path),
            "bundle_bytes": done.index.bundle.size,
            "kept_parts": done.kept_parts,
            "index_signers": [signer.as_dict() for signer in index_signers],
            "signers": [signer.as_dict() for signer in signers],
            **done.index.as_dict(),
        },
    )
