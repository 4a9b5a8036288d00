"""The commands around the stick: split a bundle into parts, join them again."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bundle.carry import join, split
from bundle.cli.answer import Answer
from bundle.cli.options import add_custody, add_trust, home_of, trust_of
from bundle.cli.parser import add_command
from bundle.cli.terminal import Narrator, Progress
from bundle.core.text import size, table
from bundle.jumphost.store import DEFAULT_HOME
from bundle.trust.sshsig import Signer, Trust
from bundle.verify.checks import opened

SIZE = "3900M"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these commands to the parser."""
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


def _count(parts: int) -> str:
    return f"{parts} part" + ("s" if parts != 1 else "")


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
        f"{_count(len(index.parts))} in {out}, index {signed}\n"
        f"{table(rows, ['file', 'size', 'sha256'])}\n\n"
        f"Carry {index.bundle.name}.* together. On the jump host, import reads the parts:\n"
        f"  {DEFAULT_HOME}/current/venv/bin/python -m bundle import STICK/{index.name}",
        {"index": str(place), "signed": bool(given), **index.as_dict()},
    )


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
    return Answer(
        f"{_count(len(done.index.parts))} joined, as the index says\n{table(rows)}\n\n{left}",
        {
            "bundle": str(done.path),
            "kept_parts": done.kept_parts,
            "index_signers": [signer.as_dict() for signer in index_signers],
            "signers": [signer.as_dict() for signer in signers],
            **done.index.as_dict(),
        },
    )
