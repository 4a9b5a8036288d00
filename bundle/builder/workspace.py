"""A folder for a build's half-made files; what a killed build left behind goes with the next."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bundle.core import locks

PREFIX = ".build-"


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Make a folder beside the results, so that a rename brings them there; remove it at the end.

    A build holds a lock on its folder for as long as it lives, so those of other builds that run
    at the same time are left alone.
    """
    with ExitStack() as held:
        # Nobody sweeps between the making of a folder and its lock.
        with locks.folder(out):
            for left in sorted(out.glob(f"{PREFIX}*")):
                with locks.folder(left, locks.AT_ONCE) as abandoned:
                    if abandoned:
                        shutil.rmtree(left, ignore_errors=True)
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX, dir=out))
            held.enter_context(locks.folder(Path(folder)))
        yield Path(folder)
