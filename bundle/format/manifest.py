"""The manifest: strict reading, cross-checks, and its one written form."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

from bundle.core import schema as s
from bundle.errors import AirliftError, Kind
from bundle.format.tar import MAX_MEMBER, split_name

FORMAT = 1
PRODUCT = "airlift"
ARCHITECTURES = ("amd64", "arm64")
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
VERIFIER = "verify.pyz"
MAX_BYTES = 32 << 20
MAX_PATH = 255
MAX_BYTES_ON_HOST = 2**53

DIRECTORIES = ("content", "about", "wheels", "packages", "oci", "blobs")
# A delta may omit these, which are large and seldom change. It carries all others.
LEAVABLE = ("about", "wheels", "packages", "blobs")
# A release directory has these beside the content, so content must not contain them.
RESERVED_IN_RELEASE = ("venv", "about", "wheels", "packages", "oci", VERIFIER)
# No release works without these, so a bundle without them is refused before it is stored.
REQUIRED = (
    VERIFIER,
    "content/ansible.cfg",
    "content/bundle/__init__.py",
    "content/requirements/controller.txt",
    "oci/index.json",
    "oci/oci-layout",
)

VERSION = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?"
HASH = r"[0-9a-f]{64}"
_DIGEST = rf"sha256:{HASH}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
IMAGE_SOURCES = "debian|registry"
_NAME = r"[a-z0-9]+([._-][a-z0-9]+)*"
# No dot or dash at the start: no hidden files, and nothing that programs read as an option.
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._+~@%=,-]*"
_PATH = rf"{_SEGMENT}(/{_SEGMENT})*"

_COMPONENT = s.record(
    version=s.text(),
    repository=s.text(rf"{_NAME}(/{_NAME})*"),
    manifest_digest=s.text(_DIGEST),
    config_digest=s.text(_DIGEST),
    diff_ids=s.array(s.text(_DIGEST)),
    layers=s.array(
        s.record(digest=s.text(_DIGEST), size=s.integer(1, MAX_MEMBER), media_type=s.text())
    ),
    unpacked_size=s.integer(0, MAX_BYTES_ON_HOST),
    pinned=s.nullable(s.text()),
    drift=s.nullable(s.text()),
    probe=s.array(s.text()),
)

MEMBER = {
    "path": s.text(_PATH, limit=MAX_PATH),
    "size": s.integer(0, MAX_MEMBER),
    "sha256": s.text(HASH),
}

_SHAPE = s.record(
    format=s.integer(FORMAT, FORMAT),
    product=s.text(PRODUCT),
    version=s.text(VERSION, limit=64),
    serial=s.integer(1, 2**53),
    created=s.text(TIME),
    architecture=s.text("|".join(ARCHITECTURES)),
    revision=s.text(),
    upgrade=s.record(minimum_version=s.text(VERSION), required_stops=s.array(s.text(VERSION))),
    schema=s.record(head=s.integer(0), lowest_compatible=s.integer(0)),
    image_source=s.text(IMAGE_SOURCES),
    components=s.mapping(_NAME, _COMPONENT),
    absent=s.mapping(_NAME, s.record(reason=s.text())),
    zones=s.mapping(r"[a-z][a-z0-9_]*", s.record(bytes=s.integer(0, MAX_BYTES_ON_HOST))),
    # For a delta: the releases that it is based on, and their members that it omits.
    bases=s.array(
        s.record(version=s.text(VERSION), serial=s.integer(1, 2**53), release_sha256=s.text(HASH))
    ),
    left_out=s.array(s.record(**MEMBER, base=s.text(VERSION))),
    members=s.array(s.record(**MEMBER)),
)


class Member(NamedTuple):
    """One file of the bundle."""

    path: str
    size: int
    sha256: str
    #: The release that has it, if the bundle omits it.
    base: str = ""

    @property
    def is_blob(self) -> bool:
        """Return whether it belongs into the shared store, not into the release directory."""
        return self.path.startswith("blobs/")

    @property
    def release_path(self) -> str:
        """Return its path in a release directory."""
        return self.path.removeprefix("content/")


class Base(NamedTuple):
    """A release that a delta is based on."""

    version: str
    serial: int
    release_sha256: str


class Manifest:
    """A manifest that passed every check."""

    def __init__(self, data: dict[str, Any], raw: bytes) -> None:
        self.data = data
        #: Its exact bytes.
        self.raw = raw

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """Return the files, in the archive's order."""
        return tuple(Member(m["path"], m["size"], m["sha256"]) for m in self.data["members"])

    @cached_property
    def left_out(self) -> tuple[Member, ...]:
        """Return the members that a delta expects on the jump host; none for a full bundle."""
        return tuple(
            Member(m["path"], m["size"], m["sha256"], m["base"]) for m in self.data["left_out"]
        )

    @cached_property
    def bases(self) -> tuple[Base, ...]:
        """Return the releases that have the members that a delta omits, newest first."""
        return tuple(
            Base(b["version"], b["serial"], b["release_sha256"]) for b in self.data["bases"]
        )

    @property
    def contents(self) -> tuple[Member, ...]:
        """Return all members of the release, whether carried or omitted."""
        return (*self.members, *self.left_out)

    @cached_property
    def release_sha256(self) -> str:
        """Return the identity of the release, which its full bundle and all its deltas share.

        It is the hash of the full bundle's manifest.
        """
        members = [
            {"path": m.path, "size": m.size, "sha256": m.sha256}
            for m in sorted(self.contents, key=lambda m: order(m.path))
        ]
        full = {**self.data, "bases": [], "left_out": [], "members": members}
        if full == self.data:
            return hashlib.sha256(self.raw).hexdigest()
        return hashlib.sha256(encode(full)).hexdigest()

    @property
    def full_name(self) -> str:
        """Return the file name of this release's full bundle."""
        return bundle_name(self.version, self.data["architecture"])

    @property
    def version(self) -> str:
        """Return the release's SemVer version."""
        return str(self.data["version"])

    @property
    def serial(self) -> int:
        """Return the number that rises from release to release."""
        return int(self.data["serial"])

    @property
    def components(self) -> dict[str, dict[str, Any]]:
        """Return the images, by component."""
        components: dict[str, dict[str, Any]] = self.data["components"]
        return components

    @property
    def total_size(self) -> int:
        """Return the bytes of all carried members."""
        return sum(m.size for m in self.members)


def order(path: str) -> tuple[int, str]:
    """Return a key that sorts members into the order of `build`."""
    top = path.partition("/")[0]
    return (DIRECTORIES.index(top) if top in DIRECTORIES else -1), path


def may_be_left_out(path: str) -> bool:
    """Return whether a delta may omit this member, because a base has it."""
    top, _, rest = path.partition("/")
    return top in LEAVABLE and bool(rest)


def encode(data: dict[str, Any]) -> bytes:
    """Return the only form in which a manifest may be written."""
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def parse(raw: bytes) -> Manifest:
    """Read and check a manifest whose signature was already verified."""
    try:
        data = json.loads(raw.decode("ascii"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        _refuse(f"the manifest is not JSON: {error}")
    if not isinstance(data, dict):
        _refuse("the manifest is not a JSON object")
    found = data.get("format")
    if isinstance(found, int) and found > FORMAT:
        _refuse(
            f"the manifest has format {found}, newer than this verifier's {FORMAT}",
            fix="extract this bundle's own verify.pyz and check it by hand, as in docs/TRUST.md",
        )
    try:
        _SHAPE(data, "")
    except s.ShapeError as error:
        _refuse(f"manifest.json: {error}")
    if encode(data) != raw:
        _refuse("manifest.json is not in canonical form, so `bundle build` did not write it")
    manifest = Manifest(data, raw)
    _check_members(manifest)
    _check_left_out(manifest)
    _check_paths(manifest)
    _check_components(manifest)
    return manifest


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            message = f"the key {key!r} occurs twice"
            raise ValueError(message)
        result[key] = value
    return result


def _check_members(manifest: Manifest) -> None:
    members = manifest.members
    seen: set[str] = set()
    for member in members:
        path = member.path
        top, _, rest = path.partition("/")
        if path != VERIFIER and (top not in DIRECTORIES or not rest):
            _refuse(f"the manifest lists {path!r}, outside {', '.join(DIRECTORIES)}")
        if path in seen:
            _refuse(f"the manifest lists {path!r} twice")
        seen.add(path)
        if member.is_blob and path != f"blobs/sha256/{member.sha256}":
            _refuse(f"the manifest lists the blob {path!r} under a name that is not its SHA-256")
        first = rest.partition("/")[0]
        if top == "content" and (
            first in RESERVED_IN_RELEASE or first == MANIFEST or first.startswith(SIGNATURE)
        ):
            _refuse(f"the manifest lists {path!r}, a name that Airlift reserves")
    if missing := [path for path in REQUIRED if path not in seen]:
        _refuse(f"the manifest lists no {missing[0]}")
    if members[0].path != VERIFIER:
        _refuse(f"the manifest does not list {VERIFIER} first")


def _check_paths(manifest: Manifest) -> None:
    """Refuse a path, carried or omitted, that conflicts with another or is too long."""
    paths = [member.path for member in manifest.contents]
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    if both := sorted(folders.intersection(paths)):
        _refuse(f"the manifest lists {both[0]!r} as a file and as a folder")
    if long := [path for path in paths if split_name(path) is None]:
        _refuse(f"the manifest lists {long[0]!r}, a path too long for the archive")


def _check_left_out(manifest: Manifest) -> None:
    """Check that a delta omits only allowed members, and names a base for each."""
    serials = [manifest.serial, *(base.serial for base in manifest.bases)]
    if sorted(set(serials), reverse=True) != serials:
        _refuse(
            "the manifest's bases must be older than the release, each listed once, newest first"
        )
    versions = {base.version for base in manifest.bases}
    if len(versions | {manifest.version}) != len(serials):
        _refuse("the manifest gives one version to two of its bases, or a base its own version")
    seen = {member.path for member in manifest.members}
    for member in manifest.left_out:
        path = member.path
        if not may_be_left_out(path):
            _refuse(f"the manifest omits {path!r}, which every bundle must carry")
        if member.is_blob and path != f"blobs/sha256/{member.sha256}":
            _refuse(f"the manifest omits {path!r}, a name that is not the blob's SHA-256")
        if path in seen:
            _refuse(f"the manifest lists and omits {path!r}, or omits it twice")
        seen.add(path)
        if member.base not in versions:
            _refuse(f"the manifest omits {path!r} and names no base that has it")
    if unused := versions - {member.base for member in manifest.left_out}:
        _refuse(f"the manifest names the base {min(unused)}, but omits none of its members")


def _check_components(manifest: Manifest) -> None:
    """Check that every image is complete, so that no host lacks a blob later."""
    blobs = {m.sha256: m.size for m in manifest.contents if m.is_blob}
    needless = dict.fromkeys(blobs)
    for name, component in manifest.components.items():
        if name in manifest.data["absent"]:
            _refuse(f"the manifest has {name} both as a component and as absent")
        if len(component["layers"]) != len(component["diff_ids"]):
            _refuse(f"the manifest gives {name} another number of layers than of diff_ids")
        wanted = [(component["manifest_digest"], None), (component["config_digest"], None)]
        wanted += [(layer["digest"], layer["size"]) for layer in component["layers"]]
        for digest, size in wanted:
            value = digest.removeprefix("sha256:")
            needless.pop(value, None)
            if value not in blobs:
                _refuse(f"the manifest lists no blob {digest}, which the image of {name} needs")
            if size is not None and blobs[value] != size:
                _refuse(f"the manifest gives two sizes for the blob {digest} of {name}")
    if needless:
        # Only layers of images are measured, so such a blob would never be checked.
        listed = {member.sha256 for member in manifest.members}
        what = "lists" if min(needless) in listed else "omits"
        _refuse(f"the manifest {what} the blob {min(needless)}, which no image needs")
    schema = manifest.data["schema"]
    if schema["lowest_compatible"] > schema["head"]:
        _refuse("the manifest's schema.lowest_compatible is above its schema.head")


def _refuse(what: str, *, fix: str = "") -> NoReturn:
    raise AirliftError(
        Kind.MANIFEST,
        what,
        where=MANIFEST,
        fix=fix or "ask the vendor for a bundle that was made by `python -m bundle build`",
    )


def bundle_name(version: str, architecture: str, since: str | None = None) -> str:
    """Return the file name of a bundle, or of a delta based on another release."""
    middle = f"{version}-since-{since}" if since else version
    return f"{PRODUCT}-{middle}-{architecture}.tar"


def signature_name(number: int) -> str:
    """Return the name of a signature, in a bundle and in a release; the first is number 1."""
    return SIGNATURE if number == 1 else f"{SIGNATURE}.{number}"


def is_version(value: str) -> bool:
    """Return whether a text is a SemVer version that a manifest may have."""
    return re.fullmatch(VERSION, value) is not None


def is_member_path(path: str) -> bool:
    """Return whether a bundle may contain a file of this name."""
    return (
        len(path) <= MAX_PATH
        and re.fullmatch(_PATH, path) is not None
        and split_name(path) is not None
    )
