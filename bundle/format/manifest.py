"""The manifest: strict reading, cross-checks, and the one way to write it."""

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
# What a delta may leave out: what is large and seldom changes. The rest always travels.
LEAVABLE = ("about", "wheels", "packages", "blobs")
# A release directory holds these beside the content, so content may not bring them.
RESERVED_IN_RELEASE = ("venv", "about", "wheels", "packages", "oci", VERIFIER)
# Without these no release can be used: better to say so before it is stored.
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
# Starts with no dot and no dash: no hidden files, nothing that a program takes for an option.
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
    # A delta's: the releases that it builds on, and their members that it does not carry again.
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
    #: The release that has it, if the bundle leaves it out.
    base: str = ""

    @property
    def is_blob(self) -> bool:
        """Whether it belongs into the shared store, not into the release directory."""
        return self.path.startswith("blobs/")

    @property
    def release_path(self) -> str:
        """Where it lies in a release directory."""
        return self.path.removeprefix("content/")


class Base(NamedTuple):
    """A release that a delta builds on."""

    version: str
    serial: int
    release_sha256: str


class Manifest:
    """A manifest that passed every check."""

    def __init__(self, data: dict[str, Any], raw: bytes) -> None:
        self.data = data
        #: Its very bytes.
        self.raw = raw

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The files, in the archive's order."""
        return tuple(Member(m["path"], m["size"], m["sha256"]) for m in self.data["members"])

    @cached_property
    def left_out(self) -> tuple[Member, ...]:
        """What a delta expects on the jump host; a full bundle leaves nothing out."""
        return tuple(
            Member(m["path"], m["size"], m["sha256"], m["base"]) for m in self.data["left_out"]
        )

    @cached_property
    def bases(self) -> tuple[Base, ...]:
        """The releases that have what a delta leaves out, newest first."""
        return tuple(
            Base(b["version"], b["serial"], b["release_sha256"]) for b in self.data["bases"]
        )

    @property
    def contents(self) -> tuple[Member, ...]:
        """Everything that the release is made of, whether carried or left out."""
        return (*self.members, *self.left_out)

    @cached_property
    def release_sha256(self) -> str:
        """What identifies the release: one value for its full bundle and all its deltas.

        It is the hash of the manifest as the full bundle has it.
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
        """The file name of the bundle of this release that needs no other."""
        return bundle_name(self.version, self.data["architecture"])

    @property
    def version(self) -> str:
        """The release's SemVer version."""
        return str(self.data["version"])

    @property
    def serial(self) -> int:
        """The number that only grows from release to release."""
        return int(self.data["serial"])

    @property
    def components(self) -> dict[str, dict[str, Any]]:
        """The images, by component."""
        components: dict[str, dict[str, Any]] = self.data["components"]
        return components

    @property
    def total_size(self) -> int:
        """Bytes in all members."""
        return sum(m.size for m in self.members)


def order(path: str) -> tuple[int, str]:
    """The place of a member in a bundle that `build` makes, as a key to sort by."""
    top = path.partition("/")[0]
    return (DIRECTORIES.index(top) if top in DIRECTORIES else -1), path


def may_be_left_out(path: str) -> bool:
    """Whether a delta may rely on a base for this member."""
    top, _, rest = path.partition("/")
    return top in LEAVABLE and bool(rest)


def encode(data: dict[str, Any]) -> bytes:
    """The one form in which a manifest may be written."""
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def parse(raw: bytes) -> Manifest:
    """Read and check a manifest whose signature is already known to be good."""
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
            fix="take out this bundle's own verify.pyz and check it by hand, as docs/TRUST.md says",
        )
    try:
        _SHAPE(data, "")
    except s.ShapeError as error:
        _refuse(f"manifest.json: {error}")
    if encode(data) != raw:
        _refuse("manifest.json is not in its canonical form, so it was not made by `bundle build`")
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
            _refuse(f"the manifest lists {path!r}, a name that Airlift keeps for itself")
    if missing := [path for path in REQUIRED if path not in seen]:
        _refuse(f"the manifest lists no {missing[0]}")
    if members[0].path != VERIFIER:
        _refuse(f"the manifest does not list {VERIFIER} first")


def _check_paths(manifest: Manifest) -> None:
    """No path, carried or left out, stands in the way of another, or of the archive's form."""
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
    """A delta says of each member that it lacks which base has it, and lacks only what it may."""
    serials = [manifest.serial, *(base.serial for base in manifest.bases)]
    if sorted(set(serials), reverse=True) != serials:
        _refuse("the manifest's bases are not older than the release, each but once, newest first")
    versions = {base.version for base in manifest.bases}
    if len(versions | {manifest.version}) != len(serials):
        _refuse("the manifest gives one version to two of its bases, or a base its own version")
    seen = {member.path for member in manifest.members}
    for member in manifest.left_out:
        path = member.path
        if not may_be_left_out(path):
            _refuse(f"the manifest leaves out {path!r}, which always travels")
        if member.is_blob and path != f"blobs/sha256/{member.sha256}":
            _refuse(f"the manifest leaves out {path!r}, a name that is not the blob's SHA-256")
        if path in seen:
            _refuse(f"the manifest lists {path!r} and leaves it out, or leaves it out twice")
        seen.add(path)
        if member.base not in versions:
            _refuse(f"the manifest leaves out {path!r} and names no base that has it")
    if unused := versions - {member.base for member in manifest.left_out}:
        _refuse(f"the manifest names the base {min(unused)} and leaves nothing of it out")


def _check_components(manifest: Manifest) -> None:
    """Every image is complete: nothing will be missing when a host asks for it."""
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
        # Nobody would have looked at it: the layers of images are what is measured.
        listed = {member.sha256 for member in manifest.members}
        what = "lists" if min(needless) in listed else "leaves out"
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
    """The file name of a bundle, or of a delta since another release."""
    middle = f"{version}-since-{since}" if since else version
    return f"{PRODUCT}-{middle}-{architecture}.tar"


def signature_name(number: int) -> str:
    """The name of a signature's file, in a bundle and in a release; the first is number 1."""
    return SIGNATURE if number == 1 else f"{SIGNATURE}.{number}"


def is_version(value: str) -> bool:
    """Whether a text is a SemVer version as manifests have it."""
    return re.fullmatch(VERSION, value) is not None


def is_member_path(path: str) -> bool:
    """Whether a file of this name may be in a bundle."""
    return (
        len(path) <= MAX_PATH
        and re.fullmatch(_PATH, path) is not None
        and split_name(path) is not None
    )
