"""The release dossier: one page that a security officer reads in a browser without a network.

It is made from one template: at a build, and by `bundle dossier` from any bundle's members, then
with the verified signers.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jinja2

from bundle.core.files import read_file
from bundle.core.text import size
from bundle.errors import AirliftError, Kind
from bundle.format import manifest
from bundle.jumphost import installed
from bundle.jumphost.installed import Known
from bundle.jumphost.store import Home, now
from bundle.trust import allowed_signers
from bundle.trust.sshsig import Verdict
from bundle.verify import members
from bundle.verify.checks import Opened

NAME = "dossier.html"
#: The documents of the page, by their name in the template.
_ABOUT = {
    "licences": "about/licences.json",
    "vulnerabilities": "about/vulnerabilities.json",
    "provenance": "about/provenance.intoto.json",
}
_DOCS = {"trust": "content/docs/TRUST.md", "architecture": "content/docs/ARCHITECTURE.md"}
_LIMIT = 32 << 20

About = dict[str, Any]


@dataclass(frozen=True)
class Signed:
    """The signers: intended ones at a build, or verified ones."""

    verified: bool
    rows: tuple[dict[str, str], ...]
    ignored: tuple[str, ...] = ()
    # For verified signers: the bundle, and the time of the check.
    manifest_sha256: str = ""
    moment: str = ""


def intended(lines: Iterable[str]) -> Signed:
    """Return the signers of a build, from their lines of allowed_signers."""
    rows = []
    for line in lines:
        head, kind, key = line.rsplit(maxsplit=2)
        identity = head.rsplit(maxsplit=1)[0]
        try:
            fingerprint = allowed_signers.fingerprint(base64.b64decode(key, validate=True))
        except binascii.Error:
            fingerprint = "unknown"
        rows.append({"identity": identity, "fingerprint": fingerprint, "key_type": kind})
    return Signed(verified=False, rows=tuple(rows))


def verified(verdict: Verdict, manifest_sha256: str) -> Signed:
    """Return the signers that were just verified."""
    rows = tuple({k: str(v) for k, v in s.as_dict().items()} for s in verdict.signers)
    return Signed(True, rows, tuple(verdict.ignored), manifest_sha256, now())


def read_folder(folder: Path, tree: Path) -> About:
    """Read the documents of the page during a build: `about/` so far, and the docs."""

    def read(path: str) -> bytes | None:
        top, _, rest = path.partition("/")
        file = (folder if top == "about" else tree) / rest
        return read_file(file, _LIMIT) if file.is_file() else None

    files = sorted(p for p in folder.rglob("*") if p.is_file())
    sizes = {f"about/{p.relative_to(folder).as_posix()}": p.stat().st_size for p in files}
    return _read(read, sizes)


def read_bundle(bundle: Opened) -> About:
    """Read the documents from a bundle's members, and compare their hashes."""
    sizes = {m.path: m.size for m in bundle.manifest.members}

    def read(path: str) -> bytes | None:
        if sizes.get(path, _LIMIT) >= _LIMIT:
            return None
        return members.read(bundle, path)

    return _read(read, {path: sizes[path] for path in sorted(sizes) if path.startswith("about/")})


def read_release(release: Known, home: Home) -> About:
    """Read the documents from an imported release."""
    known = {member.path: member for member in release.manifest.contents}

    def read(path: str) -> bytes | None:
        if path not in known or known[path].size >= _LIMIT:
            return None
        return read_file(installed.file_of(release, home, known[path]), known[path].size)

    sizes = {path: known[path].size for path in sorted(known) if path.startswith("about/")}
    return _read(read, sizes)


def render(
    release: Mapping[str, Any],
    about: About,
    signed: Signed,
    *,
    changes: Mapping[str, Any] | None = None,
    delta: str = "",
) -> str:
    """Make the page from a manifest's data and what `read_folder` or `read_bundle` found.

    `delta` describes what a delta omits.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = size
    try:
        inside, issues = _inside(about), _issues(about)
        return environment.get_template("dossier.html.j2").render(
            release=release,
            about=about,
            signed=signed,
            changes=changes,
            delta=delta,
            commands=_commands(release, about),
            images=_images(release["components"], about),
            packages=len({(r["package"], r["version"]) for o in inside for r in o["rows"]}),
            inside=inside,
            issues=issues,
            severities=Counter(issue["severity"] for issue in issues),
        )
    except (jinja2.TemplateError, KeyError, TypeError, AttributeError, ValueError) as error:
        _refuse(f"the documents of the bundle have an unknown form: {error}")


def _read(read: Callable[[str], bytes | None], sizes: Mapping[str, int]) -> About:
    found: About = {"files": dict(sizes)}
    for name, path in _ABOUT.items():
        raw = read(path)
        try:
            found[name] = None if raw is None else json.loads(raw)
        except (ValueError, RecursionError) as error:
            _refuse(f"{path} is not JSON: {error}")
    docs = {name: (read(path) or b"").decode("utf-8", "replace") for name, path in _DOCS.items()}
    found["commands"] = [block for t in ("settings", "by hand") if (block := _block(docs, t))]
    found["flows"] = _flows(docs["architecture"])
    return found


def _block(docs: Mapping[str, str], title: str) -> str:
    """Return a command of docs/TRUST.md, which a test runs as it is written."""
    match = re.search(rf"<!-- {title} -->\n```sh\n(.*?)```", docs["trust"], re.DOTALL)
    return match[1] if match else ""


def _flows(text: str) -> list[list[str]]:
    """Return the rows of the table of flows in docs/ARCHITECTURE.md."""
    part = text.partition("<!-- flows")[2].partition("<!-- end of flows")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def _commands(release: Mapping[str, Any], about: About) -> list[str]:
    """Return the commands with this release's name instead of the example's."""
    name = manifest.bundle_name(release["version"], release["architecture"])
    return [re.sub(r"airlift-[\w.-]+\.tar", name, block) for block in about["commands"]]


def _images(components: Mapping[str, dict[str, Any]], about: About) -> list[dict[str, Any]]:
    counts = {one["component"]: len(one["rows"]) for one in _inside(about)}
    uses = Counter(
        digest
        for component in components.values()
        for digest in {layer["digest"] for layer in component["layers"]}
    )
    return [
        {
            "name": name,
            **{k: component[k] for k in ("version", "manifest_digest", "pinned", "drift")},
            "layers": len(component["layers"]),
            "shared": sum(1 for layer in component["layers"] if uses[layer["digest"]] > 1),
            "size": sum({x["digest"]: x["size"] for x in component["layers"]}.values()),
            "packages": counts.get(name),
        }
        for name, component in sorted(components.items())
    ]


def _inside(about: About) -> list[dict[str, Any]]:
    """Return the packages of each component, and the counts of their licences."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in (about["licences"] or {"packages": []})["packages"]:
        rows.setdefault(row["component"], []).append(row)
    return [
        {
            "component": name,
            "rows": rows[name],
            "licences": _licences(row["licence"] for row in rows[name]).most_common(8),
            "unstated": sum(1 for row in rows[name] if row["licence"] == "not stated"),
        }
        for name in sorted(rows)
    ]


def _licences(expressions: Iterable[str]) -> Counter[str]:
    """Count the packages of each licence."""
    words = (set(re.split(r"[()\s]+", expression)) for expression in expressions)
    skipped = {"", "AND", "OR", "WITH", "not", "stated"}
    return Counter(sorted(word for each in words for word in each - skipped))


def _issues(about: About) -> list[dict[str, Any]]:
    """Return each known vulnerability once, most severe first, with all affected packages."""
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for one in (about["vulnerabilities"] or {"findings": []})["findings"]:
        key = (one["id"], one["severity"] or "not stated")
        sets = found.setdefault(key, {"packages": set(), "components": set(), "fixed_in": set()})
        sets["packages"].add(f"{one['package']} {one['version']}")
        sets["components"].add(one["component"])
        sets["fixed_in"].add(one["fixed_in"] or "not fixed")
    return [
        {"id": key[0], "severity": key[1], **{k: sorted(v) for k, v in found[key].items()}}
        for key in sorted(found, key=lambda key: (_rank(key[1]), key))
    ]


def _rank(severity: str) -> int:
    order = ("critical", "high", "medium", "low", "not stated", "not yet assigned", "undetermined")
    return order.index(severity) if severity in order else len(order)


def _refuse(what: str) -> NoReturn:
    raise AirliftError(
        Kind.MANIFEST,
        what,
        where="about/",
        fix="use the version of Airlift that the bundle carries, or read the members with "
        "inspect --cat",
    )
