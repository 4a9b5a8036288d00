"""The service without one of its safeguards: negative controls of the oracle."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.unit.app.appkit import ROOT

#: Way: file below app/, what is there, what takes its place, how many times it is there.
WAYS: dict[str, tuple[tuple[str, str, str, int], ...]] = {
    # A worker whose lease ran out may write the end of the job all the same.
    "fencing": (("jobs/repository.py", "lease_epoch = %s AND", "lease_epoch >= %s AND", 5),),
    # The 202 is sent first, the commit comes a moment later.
    "commit": (
        (
            "jobs/service.py",
            "earlier = await self._record(job, key)",
            "asyncio.get_running_loop().call_later(\n"
            "            0.5, lambda: asyncio.ensure_future(self._record(job, key)))\n"
            "        earlier = None",
            1,
        ),
        ("jobs/service.py", "import hashlib\n", "import asyncio\nimport hashlib\n", 1),
    ),
}


def copy(way: str, folder: Path) -> Path:
    """Copy the service there and break it; returns the folder."""
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new, count in WAYS[way]:
        path = folder / "app" / name
        text = path.read_text()
        if text.count(old) != count:
            raise AssertionError(f"{name} has changed: {old!r} is there {text.count(old)} times")
        path.write_text(text.replace(old, new))
    return folder
