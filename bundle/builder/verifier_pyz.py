"""Makes verify.pyz: the carried part of this package as one file, the same bytes every time."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

# Standard library only, Python 3.11 to 3.13, and nothing that needs what is not in the list.
CARRIED = (
    "__init__",
    "cli/__init__",
    "cli/answer",
    "cli/catalog",
    "cli/custody",
    "cli/exit_codes",
    "cli/import_release",
    "cli/inspect",
    "cli/main",
    "cli/options",
    "cli/parser",
    "cli/verify",
    "core/__init__",
    "core/files",
    "core/schema",
    "core/show",
    "errors",
    "format/__init__",
    "format/delta",
    "format/layer_size",
    "format/manifest",
    "format/parts",
    "format/tar",
    "jumphost/__init__",
    "jumphost/bases",
    "jumphost/importer",
    "jumphost/installed",
    "jumphost/kept_trust",
    "jumphost/store",
    "jumphost/venv",
    "review/__init__",
    "review/inspect",
    "trust/__init__",
    "trust/allowed_signers",
    "trust/custody",
    "trust/sshkeygen",
    "trust/sshsig",
    "verify/__init__",
    "verify/checks",
    "verify/members",
)

# Runs before anything else is read, on whatever Python it meets.
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
    # Stored, not deflated: two zlib versions do not always compress alike.
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        for name in CARRIED:
            _add(archive, f"bundle/{name}.py", (package / f"{name}.py").read_bytes())
    return out.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)
