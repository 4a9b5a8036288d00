"""Reads and checks `images.lock.yml`; errors name the place of a misspelt key or digest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bundle.builder.problems import Problem
from bundle.builder.yaml_table import Table

ZONES = ("dmz", "app", "data", "monitor")

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_USER = re.compile(r"\d+:\d+")
_UPSTREAM_KEYS = ("image", "tag", "digest", "platforms", "licence", "source")
_HOST = re.compile(r"(?:[\w-]+(?:\.[\w-]+)+|localhost)(?::\d+)?")


@dataclass(frozen=True)
class Platform:
    """The image of one architecture in an index."""

    manifest: str
    config: str
    diff_ids: tuple[str, ...]


@dataclass(frozen=True)
class Upstream:
    """An image in a registry, pinned by the digest of its index."""

    image: str
    tag: str
    digest: str
    # By architecture; `bundle lock` writes it from the registry.
    platforms: dict[str, Platform] = field(default_factory=dict, compare=False)
    # SPDX expression of the program in it, and where its source is.
    licence: str = ""
    source: str = ""

    @property
    def host(self) -> str:
        """Return the registry."""
        return self.image.partition("/")[0]

    @property
    def repository(self) -> str:
        """Return the name in the registry."""
        return self.image.partition("/")[2]

    def __str__(self) -> str:
        return f"{self.image}:{self.tag}@{self.digest}"


@dataclass(frozen=True)
class Recipe:
    """How an image is made from Debian packages."""

    name: str
    base: str
    package: str


@dataclass(frozen=True)
class AppBuild:
    """The inputs of the product's own image."""

    name: str
    dockerfile: str
    base: str
    requirements: str
    context: tuple[str, ...]


@dataclass(frozen=True)
class ImagePin:
    """One image of the lock. Either `upstream` or `build` is set."""

    name: str
    user: str
    probe: tuple[str, ...]
    zones: tuple[str, ...]
    upstream: Upstream | None = None
    recipe: Recipe | None = None
    absent: str = ""
    build: AppBuild | None = None


@dataclass(frozen=True)
class ImageLock:
    """The whole lock."""

    path: Path
    as_of: str
    index_max_age_days: int
    suites: tuple[str, ...]
    bases: dict[str, tuple[Upstream, Recipe]] = field(default_factory=dict)
    images: dict[str, ImagePin] = field(default_factory=dict)

    @property
    def hosts(self) -> list[str]:
        """Return every registry that the pins need."""
        pins = [pin.upstream for pin in self.images.values() if pin.upstream]
        return sorted({one.host for one in [*pins, *(base for base, _ in self.bases.values())]})

    @property
    def epoch(self) -> int:
        """Return the date of everything that is built, in seconds (SOURCE_DATE_EPOCH)."""
        return int(datetime.fromisoformat(self.as_of).replace(tzinfo=UTC).timestamp())


def load(path: Path) -> ImageLock:
    """Read and check the lock; raise a `Problem` that names file and key."""
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise Problem(f"cannot read the image lock {path}: {error}") from error
    top = Table(path, "", tree)
    top.only("format", "debian", "bases", "images")
    if top.get("format", int) != 1:
        raise Problem(f"{path}: format: only 1 is known here")
    debian = top.table("debian")
    debian.only("as_of", "index_max_age_days", "suites")
    lock = ImageLock(
        path=path,
        as_of=debian.match("as_of", re.compile(r"\d{4}-\d\d-\d\d")),
        index_max_age_days=debian.get("index_max_age_days", int),
        suites=debian.strings("suites"),
    )
    bases = top.table("bases")
    for name in bases.names():
        base = bases.table(name)
        base.only(*_UPSTREAM_KEYS, "debian")
        lock.bases[name] = (_upstream(base), _recipe(base.table("debian"), lock))
    images = top.table("images")
    for name in images.names():
        lock.images[name] = _image(name, images.table(name), lock)
    return lock


def _image(name: str, table: Table, lock: ImageLock) -> ImagePin:
    common_keys = ("user", "probe", "zones")
    if table.has("build"):
        table.only("build", *common_keys)
    else:
        table.only(*_UPSTREAM_KEYS, "debian", *common_keys)
    user = table.match("user", _USER)
    probe = table.strings("probe")
    zones = table.strings("zones")
    if unknown := set(zones) - set(ZONES):
        raise table.wrong(
            "zones", f"unknown {', '.join(sorted(unknown))}; known: {', '.join(ZONES)}"
        )
    common: dict[str, Any] = {"name": name, "user": user, "probe": probe, "zones": zones}
    if table.has("build"):
        build = table.table("build")
        build.only("dockerfile", "base", "requirements", "context")
        base = build.get("base", str)
        if base not in lock.bases:
            raise build.wrong("base", f"{base} is not among bases")
        made = AppBuild(
            name=name,
            dockerfile=build.get("dockerfile", str),
            base=base,
            requirements=build.get("requirements", str),
            context=build.strings("context"),
        )
        return ImagePin(**common, build=made)
    debian = table.table("debian")
    if debian.has("absent"):
        debian.only("absent")
        reason = debian.get("absent", str).strip()
        return ImagePin(**common, upstream=_upstream(table), absent=reason)
    return ImagePin(**common, upstream=_upstream(table), recipe=_recipe(debian, lock))


def _upstream(table: Table) -> Upstream:
    image = table.get("image", str)
    if not _HOST.fullmatch(image.partition("/")[0]):
        raise table.wrong("image", f"{image} does not begin with a registry's name")
    platforms = {}
    for name in table.table("platforms").names() if table.has("platforms") else ():
        one = table.table("platforms").table(name)
        one.only("manifest", "config", "diff_ids")
        if bad := [text for text in one.strings("diff_ids") if not _DIGEST.fullmatch(text)]:
            raise one.wrong("diff_ids", f"{bad[0]!r} is not of the form {_DIGEST.pattern}")
        manifest, config = one.match("manifest", _DIGEST), one.match("config", _DIGEST)
        platforms[name] = Platform(manifest, config, one.strings("diff_ids"))
    return Upstream(
        image=image,
        tag=table.get("tag", str),
        digest=table.match("digest", _DIGEST),
        platforms=platforms,
        licence=table.get("licence", str) if table.has("licence") else "",
        source=table.get("source", str) if table.has("source") else "",
    )


def _recipe(table: Table, lock: ImageLock) -> Recipe:
    table.only("recipe", "base", "package")
    recipe = Recipe(
        name=table.get("recipe", str),
        base=table.get("base", str),
        package=table.get("package", str),
    )
    if recipe.base not in lock.suites:
        raise table.wrong("base", f"{recipe.base} is not among debian.suites")
    if not (lock.path.parent / "recipes" / f"{recipe.name}.Dockerfile").is_file():
        raise table.wrong("recipe", f"bundle/recipes/{recipe.name}.Dockerfile does not exist")
    return recipe
