"""The completeness gate: a bundle has everything that roles, playbooks and inventory need.

A client cannot fetch missing parts, so an incomplete build fails. One message names all of them.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from bundle.builder.hosts import systems
from bundle.builder.wheels import CONTROLLER_PYTHONS
from bundle.errors import AirliftError, Kind

#: The Pythons of a jump host, as minor versions of 3.
PYTHONS = tuple(int(version.removeprefix("3.")) for version in CONTROLLER_PYTHONS)
_BUILTIN = "ansible.builtin."
_FQCN = re.compile(r"[a-z_]\w*\.[a-z_]\w*\.[a-z_]\w*")
_PLUGIN = re.compile(rf"(?:\|\s*|\bis (?:not )?|\b(?:lookup|query|q)\(\s*['\"])({_FQCN.pattern})\b")
_IMAGE = re.compile(r"\bsite_images(?:\.([\w-]+)|\[['\"]([\w.-]+)['\"]\])")


#: Allows every absent name.
ALL = "all"


def check_absent(absent: Mapping[str, Mapping[str, str]], allowed: Collection[str]) -> None:
    """Refuse absent parts that are not explicitly allowed: a registry may only be slow today.

    `absent` lists what is unavailable here, in the form of the manifest.
    """
    missing = {} if ALL in allowed else {n: a for n, a in absent.items() if n not in allowed}
    if missing:
        lacks = "; ".join(f"{name} ({one['reason']})" for name, one in sorted(missing.items()))
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"the bundle would lack {lacks}",
            where="images in bundle/release.yml",
            fix="build where all of it is available (--source registry has every image), or accept "
            f"a bundle without it: --allow-absent {' '.join(sorted(missing))}",
        )


class _Loader(yaml.CSafeLoader):
    """Reads Ansible's files; ignores the values of tags such as `!vault`."""


_Loader.add_multi_constructor("!", lambda *_: None)


def check(
    tree: Path,
    files: Mapping[str, Path],
    components: Collection[str],
    absent: Collection[str],
) -> None:
    """Refuse a set of members that is incomplete.

    `files` maps member paths to the files that become them; `components` and `absent` are the
    names in the manifest.
    """
    documents = dict(_documents(tree))
    found = [
        *_images(documents, set(components) | set(absent)),
        *_roles(documents, files),
        *_plugins(documents, files),
        *_callback(tree, files),
        *_packages(tree, documents, files, absent),
        *_wheels(files),
    ]
    # Name each missing thing once, with the first place that needs it.
    lacking = {text.partition(", which ")[0]: text for text in reversed(found)}
    if lacking:
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"the bundle would be incomplete: {'; '.join(sorted(lacking.values()))}",
            where=str(tree),
            fix="add what is missing where it is collected (bundle/images.lock.yml, "
            "bundle/builder/content.py, bundle/systems.yml, requirements/controller.in), or remove "
            "the place that needs it",
        )


def _documents(tree: Path) -> Iterator[tuple[str, Any]]:
    """Yield every YAML file that Ansible may read on a site."""
    for top in ("roles", "playbooks", "inventories/example"):
        for path in sorted((tree / top).rglob("*.yml")):
            name = path.relative_to(tree).as_posix()
            if path.name == "argument_specs.yml":  # describes variables, sets none
                continue
            try:
                yield name, yaml.load(path.read_text(), _Loader)  # noqa: S506 - a SafeLoader
            except yaml.YAMLError as error:
                raise AirliftError(
                    Kind.BUILD_INPUT,
                    f"{name} is not YAML: {' '.join(str(error).split())}",
                    where=str(path),
                    fix="correct it; `make lint` finds such errors",
                ) from error


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, at any depth; texts of lists come with an empty key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, str):
                yield "", inner
            yield from _walk(inner)


def _images(documents: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    for name, document in documents.items():
        for key, value in _walk(document):
            asked: list[str] = []
            if key == "component" and isinstance(value, str) and "{{" not in value:
                asked = [value]
            elif key == "site_components" and isinstance(value, dict):
                asked = list(value)
            elif isinstance(value, str):
                asked = [found[1] or found[2] for found in _IMAGE.finditer(value)]
            for component in asked:
                if component not in known:
                    yield f"no image of {component}, which {name} needs"


def _roles(documents: Mapping[str, Any], files: Collection[str]) -> Iterator[str]:
    there = {path.split("/")[2] for path in files if path.startswith("content/roles/")}
    for name, document in documents.items():
        for key, value in _walk(document):
            asked: list[Any] = []
            if key in (f"{_BUILTIN}import_role", f"{_BUILTIN}include_role"):
                asked = [value.get("name")] if isinstance(value, dict) else []
            elif key in ("roles", "dependencies") and isinstance(value, list):
                asked = [one.get("role") if isinstance(one, dict) else one for one in value]
            for role in asked:
                if isinstance(role, str) and "{{" not in role and role not in there:
                    yield f"no role {role}, which {name} uses"


def _plugins(documents: Mapping[str, Any], files: Collection[str]) -> Iterator[str]:
    there = set()
    for path in files:
        parts = path.removeprefix("content/collections/ansible_collections/").split("/")
        if len(parts) > 4 and parts[2] == "plugins":
            there.add(f"{parts[0]}.{parts[1]}.{Path(parts[-1]).stem}")
    for name, document in documents.items():
        for key, value in _walk(document):
            # A module has options or words. A number or a list belongs to a setting's name.
            called = _FQCN.fullmatch(key) and not isinstance(value, int | float | list)
            asked = [key] if called else []
            if isinstance(value, str):
                asked += _PLUGIN.findall(value)
            for plugin in asked:
                if not plugin.startswith(_BUILTIN) and plugin not in there:
                    yield f"no plugin {plugin}, which {name} uses"


def _callback(tree: Path, files: Collection[str]) -> Iterator[str]:
    """Check that the output plugin of ansible.cfg is there: without it no playbook starts."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(tree / "ansible.cfg")
    if name := settings.get("defaults", "stdout_callback", fallback=""):
        folder = settings.get("defaults", "callback_plugins", fallback="").removeprefix("./")
        if f"content/{folder}/{name}.py" not in files:
            yield f"no callback {name}, which ansible.cfg names"


def _packages(
    tree: Path, documents: Mapping[str, Any], files: Mapping[str, Path], absent: Collection[str]
) -> Iterator[str]:
    """Check that each system's repository has all packages, or is listed as absent."""
    for system, (where, wanted) in sorted(_systems(tree, documents).items()):
        index = files.get(f"packages/{system}/Packages")
        if index is None:
            if f"packages-{system}" not in absent:
                yield f"no packages for {system}, which {where} names"
            continue
        there = set(re.findall(r"^Package: (\S+)$", index.read_text(), re.MULTILINE))
        for package in sorted(wanted - there):
            yield f"no package {package} for {system}, which {where} names"


def _systems(tree: Path, documents: Mapping[str, Any]) -> dict[str, tuple[str, set[str]]]:
    """Map each system with packages to the place that names it, and their names."""
    found: dict[str, tuple[str, set[str]]] = {}
    if (tree / systems.NAME).is_file():
        known = systems.load(tree / systems.NAME)
        found = {one.folder: (systems.NAME, set(one.packages)) for one in known}
    for name, document in documents.items():
        for key, value in _walk(document):
            for one in value if key == "site_systems" and isinstance(value, list) else ():
                if one.get("engine"):
                    kinds = ("engine", "support", "shared_address")
                    wanted = {name for kind in kinds for name in one.get(kind, ())}
                    found[f"{one['id']}-{one['version']}"] = (name, wanted)
    return found


def _wheels(files: Mapping[str, Path]) -> Iterator[str]:
    """Check that every requirement of the jump host has a wheel for each of its Pythons."""
    wheels: dict[tuple[str, Version], set[str]] = {}
    for path in files:
        if path.startswith("wheels/") and path.endswith(".whl"):
            name, version, _, tags = parse_wheel_filename(path.rpartition("/")[2])
            found = wheels.setdefault((name, version), set())
            found |= {f"{tag.interpreter}-{tag.abi}" for tag in tags}
    lines = files["content/requirements/controller.txt"].read_text()
    for line in re.findall(r"^[A-Za-z0-9].*", lines, re.MULTILINE):
        requirement = Requirement(line.partition(" --hash")[0].rstrip(" \\"))
        version = Version(str(requirement.specifier).removeprefix("=="))
        for minor in PYTHONS:
            place = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0"}
            if requirement.marker and not requirement.marker.evaluate(place):
                continue
            tags_there = wheels.get((canonicalize_name(requirement.name), version), set())
            if not any(_serves(tag, minor) for tag in tags_there):
                yield f"no wheel of {requirement.name} {version} for Python 3.{minor}"


def _serves(tag: str, minor: int) -> bool:
    interpreter, _, abi = tag.partition("-")
    if interpreter in ("py3", f"cp3{minor}", f"py3{minor}"):
        return True
    found = re.fullmatch(r"cp3(\d+)", interpreter)
    return found is not None and abi == "abi3" and int(found[1]) <= minor
