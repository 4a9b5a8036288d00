"""Reads and checks `systems.yml`: the operating systems of container hosts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from bundle.builder.problems import Problem
from bundle.builder.yaml_table import Table

NAME = "bundle/systems.yml"
FILE = Path(__file__).parents[2] / "systems.yml"
FORMATS = ("deb", "rpm")

_WORD = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_URL = re.compile(r"https?://[\w.:-]+(/[\w.$/~-]*)?", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9A-F]{40}")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")
_IMAGE = re.compile(r"[\w-]+(\.[\w-]+)+(:\d+)?(/[a-z0-9._-]+)+", re.ASCII)
_TAG = re.compile(r"[\w][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Base:
    """The base in which a system's packages are fetched: a suite of Debian, or a public image."""

    suite: str = ""
    image: str = ""
    tag: str = ""

    @property
    def registry(self) -> str:
        """Return the image's registry; empty for a suite."""
        return self.image.partition("/")[0]


@dataclass(frozen=True)
class Repository:
    """An upstream package repository of the engine, beside the distribution's own."""

    url: str
    # Address of the signing key, and the fingerprint that it must have.
    key: str
    fingerprint: str
    # Only of a deb repository.
    suite: str = ""
    components: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """An operating system of container hosts."""

    id: str
    version: str
    name: str
    tested: bool
    required: bool
    format: str
    distro: str
    base: Base
    engine: tuple[str, ...]
    support: tuple[str, ...]
    # Of some hosts only: those that share an address.
    shared_address: tuple[str, ...] = ()
    repository: Repository | None = None

    @property
    def folder(self) -> str:
        """Return its folder below `packages/`."""
        return f"{self.id}-{self.version}"

    @property
    def absent_name(self) -> str:
        """Return its name in the manifest's `absent`, if a build could not fetch its packages."""
        return f"packages-{self.folder}"

    @property
    def packages(self) -> tuple[str, ...]:
        """Return all packages that a host may install."""
        return (*self.engine, *self.support, *self.shared_address)


def load(path: Path = FILE) -> tuple[System, ...]:
    """Read and check the file; raise a `Problem` that names file and key."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise Problem(f"cannot read the list of systems {path}: {error}") from error
    top = Table(path, "", tree)
    top.only("format", "systems")
    if top.get("format", int) != 1:
        raise top.wrong("format", "only 1 is known here")
    found: dict[str, System] = {}
    for table in top.tables("systems"):
        system = _system(table)
        if system.folder in found:
            raise table.wrong("version", f"{system.folder} is listed twice")
        found[system.folder] = system
    return tuple(found.values())


def _system(table: Table) -> System:
    table.only(
        *("id", "version", "name", "tested", "required", "format", "distro"),
        *("base", "repository", "engine", "support", "shared_address"),
    )
    form = table.get("format", str)
    if form not in FORMATS:
        raise table.wrong("format", f"{form} is not known; known: {', '.join(FORMATS)}")
    return System(
        id=table.match("id", _WORD),
        version=_version(table),
        name=table.get("name", str),
        tested=table.flag("tested"),
        required=table.flag("required"),
        format=form,
        distro=table.match("distro", _WORD),
        base=_base(table.table("base")),
        engine=_packages(table, "engine"),
        support=_packages(table, "support"),
        shared_address=_packages(table, "shared_address") if table.has("shared_address") else (),
        repository=_repository(table, form),
    )


def _version(table: Table) -> str:
    """Return it as a text: YAML reads 24.04 as a number, and 24.10 as another one."""
    table.get("version", str)
    return table.match("version", _WORD)


def _base(table: Table) -> Base:
    if table.has("suite"):
        table.only("suite")
        return Base(suite=table.match("suite", _WORD))
    table.only("image", "tag")
    return Base(image=table.match("image", _IMAGE), tag=table.match("tag", _TAG))


def _repository(system: Table, form: str) -> Repository | None:
    if not system.has("repository"):
        return None
    table = system.table("repository")
    own = ("suite", "components") if form == "deb" else ()
    table.only("url", "key", "fingerprint", *own)
    return Repository(
        url=table.match("url", _URL),
        key=table.match("key", _URL),
        fingerprint=table.match("fingerprint", _FINGERPRINT),
        suite=table.get("suite", str) if own else "",
        components=table.strings("components") if own else (),
    )


def _packages(table: Table, name: str) -> tuple[str, ...]:
    names = table.strings(name)
    if bad := [one for one in names if not _PACKAGE.fullmatch(one)]:
        raise table.wrong(name, f"{bad[0]!r} is not the name of a package")
    return names
