"""A folder for a build's incomplete files; the next build removes that of an interrupted one."""

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
    """Make a folder beside the results, for a final rename; remove it at the end.

    A build locks its folder while it runs, so that other builds do not remove it.
    """
    with ExitStack() as held:
        # Locked, so that no other build cleans up between making a folder and locking it.
        with locks.folder(out):
            for left in sorted(out.glob(f"{PREFIX}*")):
                with locks.folder(left, locks.AT_ONCE) as abandoned:
                    if abandoned:
                        shutil.rmtree(left, ignore_errors=True)
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX, dir=out))
            held.enter_context(locks.folder(Path(folder)))
        yield Path(folder)
