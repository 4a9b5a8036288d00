"""Makes verify.pyz: the verifying part of this package as one file, always the same bytes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

# Whole packages. A test checks their imports: they need no library and no other package.
ROOMS = ("core", "format", "trust", "verify", "jumphost", "cli")
#: The modules of `review` that need no library.
REVIEWS = ("__init__", "inspect")

# Runs before anything else is read, on any Python.
_MAIN = """\
import sys
if sys.version_info < (3, 11):
    sys.exit("airlift: Python 3.11 or newer is needed, this is " + sys.version.split()[0])
sys.dont_write_bytecode = True
from bundle.cli.main import main
sys.exit(main())
"""


def make(package: Path) -> bytes:
    """Pack the verifier from a source tree's `bundle/` folder."""
    out = io.BytesIO()
    out.write(b"#!/usr/bin/env python3\n")
    # Stored, not deflated, because zlib versions compress differently.
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        files = [package / "__init__.py", package / "errors.py"]
        files += [file for room in ROOMS for file in (package / room).rglob("*.py")]
        files += [package / "review" / f"{name}.py" for name in REVIEWS]
        for file in sorted(files):
            _add(archive, f"bundle/{file.relative_to(package).as_posix()}", file.read_bytes())
    return out.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)
