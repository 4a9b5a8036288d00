"""`bundle join`: make a bundle file from its parts."""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.carry import join
from bundle.cli.answer import Answer
from bundle.cli.options import add_custody, add_trust, home_of, trust_of
from bundle.cli.parser import add_command
from bundle.cli.terminal import Narrator, Progress
from bundle.core.text import plural, size, table
from bundle.trust.sshsig import Signer, Trust
from bundle.verify.checks import opened


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command to the parser."""
    one = add_command(
        commands,
        "join",
        _join,
        about="Each part is checked, and an interrupted join goes on. Not needed for import,\n"
        "which reads the parts themselves.",
        examples=("join /media/usb/airlift-1.0.0-amd64.tar.parts -o /srv",),
    )
    one.add_argument(
        "bundle",
        type=Path,
        nargs="+",
        metavar="PART",
        help="parts, or their index; name one in each directory if they lie on several sticks",
    )
    one.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="default: .")
    add_trust(one)
    add_custody(one)


def _signers_of(bundle: Path, trust: Trust | None) -> tuple[Signer, ...]:
    """Who signed the bundle itself: an index without a signature must not be the way around it."""
    if trust is None:
        return ()
    with opened(bundle, trust=trust, home=None) as found:
        assert found.verdict is not None  # noqa: S101 - `opened` was given a trust
        return found.verdict.signers


def _join(arguments: argparse.Namespace) -> Answer:
    progress = Progress("joining")
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
    left = "Its members were not compared with its manifest: verify or import does that."
    if trust is None:
        left = "Who signed the bundle is not checked yet: verify or import does that."
    head = f"{plural(len(done.index.parts), 'part')} joined, as the index says"
    return Answer(
        f"{head}\n{table(rows)}\n\n{left}",
        {
            "bundle": str(done.path),
            "kept_parts": done.kept_parts,
            "index_signers": [signer.as_dict() for signer in index_signers],
            "signers": [signer.as_dict() for signer in signers],
            **done.index.as_dict(),
        },
    )
