"""Every refusal and failure: problem, place, fix, and a documented exit code.

A test compares this enumeration with the table in `docs/TRUST.md`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class Kind(Enum):
    """A kind of error: its exit code and its meaning."""

    USAGE = (2, "wrong arguments")
    UNREADABLE = (10, "the bundle cannot be read, or the file is not an Airlift bundle")
    CUT_SHORT = (11, "the bundle ends too early")
    ALTERED = (12, "a member's bytes are not those that were signed")
    STRUCTURE = (13, "the archive has something that the manifest does not allow there")
    MANIFEST = (14, "the manifest is signed, but this verifier cannot accept it")
    PART = (15, "a part of a split bundle, or the index of its parts, is missing or bad")
    UNSIGNED = (20, "no signature, or one that is not an OpenSSH signature")
    UNKNOWN_SIGNER = (21, "signed, but by no key in the list of allowed signers")
    BAD_SIGNATURE = (22, "the signature does not fit the manifest, or was made for another purpose")
    REVOKED = (23, "the signer's key is revoked")
    EXPIRED = (24, "the signer's key is not valid at this time")
    TOO_FEW_SIGNERS = (25, "valid signatures, but by too few different keys")
    SIGNERS_FILE = (26, "the list of allowed signers or of revoked keys cannot be used")
    OLDER = (30, "the serial is lower than one that was accepted here")
    CONFLICT = (31, "the serial or version was accepted here with other content")
    RELEASE_ALTERED = (32, "an imported release is not what was accepted")
    NEEDS_BASE = (33, "a delta omits members that this jump host does not have")
    CUSTODY = (34, "a custody log was altered or torn, or cannot be continued")
    STATE = (35, "a saved state cannot be opened, or would replace what this jump host has")
    NO_SPACE = (40, "not enough disk space")
    LOCKED = (41, "another import or prune is in progress, or hosts are served from the store")
    HOME = (42, "Airlift's directory on the jump host cannot be used")
    PYTHON = (43, "this Python or OpenSSH cannot run Airlift")
    BOOTSTRAP = (44, "cannot make the release's virtual environment")
    OUTPUT = (45, "the place for the result cannot be used")
    FILE = (46, "the operating system refused to read, write or change a file")
    BUILD_INPUT = (50, "an input of the bundle is missing or wrong")
    SIGNING = (51, "no signing key, or it cannot sign")
    MOVED = (52, "a tag of the image lock names another image now")
    INTERRUPTED = (130, "interrupted by a signal; the same command continues")

    def __init__(self, exit_code: int, meaning: str) -> None:
        self.exit_code = exit_code
        self.meaning = meaning

    @property
    def label(self) -> str:
        """Return the name in JSON output and in documents, such as `cut-short`."""
        return self.name.lower().replace("_", "-")


class AirliftError(Exception):
    """A refusal or failure that a person can act on."""

    #: What `where` is called in the text; wrong arguments show the usage there.
    place = "where"

    def __init__(self, kind: Kind, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  {self.place}: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the error for `--json`."""
        return {
            "kind": self.kind.label,
            "exit_code": self.kind.exit_code,
            "what": self.what,
            "where": self.where,
            "fix": self.fix,
        }


COPY_AGAIN = (
    "copy the bundle again from its source, and compare it with SHA256SUMS; do not change the drive"
)
