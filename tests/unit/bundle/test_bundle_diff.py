"""Diff: what would be carried, and what operators must know before an upgrade."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle.builder.about.documents import PARTS, Part
from bundle.builder.about.subject import Subject
from bundle.cli.main import main
from bundle.core.events import Log
from bundle.errors import AirliftError, Kind
from bundle.jumphost.store import Home
from bundle.review import diff
from bundle.review.documents import DOCUMENTS, vulnerabilities
from tests.unit.bundle.bundlekit import (
    TREE,
    FakeSuppliers,
    Keys,
    Recipe,
    make_tree,
    run_import,
    wheel,
)
from tests.unit.bundle.deltakit import NEW_LAYER, Suppliers, options, run_build, snapshot

Craft = Callable[[Recipe], Path]

OLD_SPECS: dict[str, Any] = {
    "site_port": {"type": "int", "description": "Port."},
    "site_mode": {"type": "str", "choices": ["a", "b"], "description": "Mode."},
    "site_gone": {"type": "str", "description": "Gone."},
    "site_was": {"type": "str", "description": "Name."},
    "site_kept": {"type": "dict", "description": "Kept."},
}
NEW_SPECS: dict[str, Any] = {
    "site_port": {"type": "str", "description": "Port."},
    "site_mode": {"type": "str", "choices": ["a", "b", "c"], "description": "Mode."},
    "site_must": {"type": "str", "required": True, "description": "Must be there."},
    "site_may": {"type": "str", "description": "May be there."},
    "site_now": {"type": "str", "description": "Name."},
    "site_kept": {"type": "dict", "description": "Kept, in other words."},
}
OLD_DEFAULTS = {"site_port": 80, "site_mode": "a", "site_was": "x", "site_kept": {"k": [1]}}
NEW_DEFAULTS = {"site_port": "80", "site_mode": "b", "site_now": "y", "site_kept": {"k": [1]}}

OLD_FLAWS = [
    {
        "id": f"CVE-2026-000{number}",
        "component": "app",
        "package": "openssl",
        "version": "3.0",
        "severity": "high",
        "fixed_in": "3.1" if number == 1 else None,
    }
    for number in (1, 2)
]
NEW_FLAWS = [
    {**OLD_FLAWS[1], "version": "3.1"},
    {**OLD_FLAWS[1], "id": "CVE-2026-0003", "package": "zlib", "severity": "low"},
]


def _sbom(*purls: str) -> dict[str, Any]:
    components = [
        {"type": "library", "name": purl, "bom-ref": purl, "purl": purl} for purl in purls
    ]
    components.append({"type": "container", "name": "app"})
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}


OLD_SBOM = _sbom("pkg:deb/debian/openssl@3.0?arch=amd64", "pkg:pypi/redis@5.0", "pkg:pypi/a@1")
NEW_SBOM = _sbom("pkg:deb/debian/openssl@3.1?arch=amd64", "pkg:pypi/redis@5.0", "pkg:pypi/b@1")


def _scan(findings: list[dict[str, Any]]) -> dict[str, Any]:
    return {"scanned": True, "reason": None, "scanner": "scanner 1.0", "findings": findings}


def _writer(documents: dict[str, Any]) -> Part:
    def part(_: Subject, folder: Path) -> None:
        for name, document in documents.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(document))

    return part


@dataclass(frozen=True)
class Pair:
    old: Path
    new: Path
    delta: Path


def _role(tree: Path, specs: dict[str, Any], defaults: dict[str, Any]) -> None:
    role = tree / "roles" / "site"
    (role / "meta").mkdir(exist_ok=True)
    document = {"argument_specs": {"main": {"options": specs}}}
    (role / "meta" / "argument_specs.yml").write_text(yaml.safe_dump(document))
    (role / "defaults" / "main.yml").write_text(yaml.safe_dump(defaults))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Pair:
    """Return two releases that differ in everything that is compared."""
    folder = tmp_path_factory.mktemp("pair")
    old, new = (make_tree(folder / name, b"") for name in ("old", "new"))
    for tree in (old, new):
        shutil.copytree(TREE / "app" / "db" / "migrations", tree / "app" / "db" / "migrations")
        for later in (tree / "app" / "db" / "migrations" / "versions").glob("0*.py"):
            if not later.name.startswith("0001"):
                later.unlink()
        release = tree / "bundle" / "release.yml"
        release.write_text(re.sub(r"\{head: \d+,", "{head: 1,", release.read_text()))
    _role(old, OLD_SPECS, OLD_DEFAULTS)
    _role(new, NEW_SPECS, NEW_DEFAULTS)
    renamed = new / "roles" / "site" / "vars" / "renamed.yml"
    renamed.parent.mkdir()
    renamed.write_text("site_was: site_now\nsite_never: site_may\n")
    text = '"""A note on each item."""\n\nrevision = "0002"\ndown_revision = "0001"\n'
    (new / "app" / "db" / "migrations" / "versions" / "0002_note.py").write_text(text)
    release = new / "bundle" / "release.yml"
    release.write_text(release.read_text().replace("{head: 1,", "{head: 2,"))
    (new / "README.md").write_text("# Airlift, new\n")
    (new / "docs" / "NEW.md").write_text("x")
    (new / "docs" / "TRUST.md").unlink()
    parts = PARTS

    def make(tree: Path, documents: dict[str, Any], suppliers: Suppliers, **more: Any) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bundle.builder.about.documents.PARTS", (*parts, _writer(documents)))
            return run_build(options(tree, folder, keys, **more), suppliers).path

    first = make(
        old,
        {"sbom/release.cdx.json": OLD_SBOM, "vulnerabilities.json": _scan(OLD_FLAWS)},
        Suppliers(),
    )
    documents = {"sbom/release.cdx.json": NEW_SBOM, "vulnerabilities.json": _scan(NEW_FLAWS)}
    second = make(new, documents, Newer(), version="1.1.0")
    delta = make(new, documents, Newer(), version="1.1.0", since=(first,))
    return Pair(first, second, delta)


class Newer(Suppliers):
    """Suppliers of another wheel, another package, and another layer of the app."""

    def __init__(self) -> None:
        super().__init__(NEW_LAYER)
        self.wheelhouse = dict([wheel("airlifttiny", "1.1", {})]), b""

    def packages(self, dest: Path, log: Log) -> dict[str, dict[str, str]]:
        absent = FakeSuppliers.packages(self, dest, log)
        dest = dest / "debian-13"
        (dest / "docker.io_26.1.5+dfsg1-9+b4_amd64.deb").rename(dest / "docker.io_27_amd64.deb")
        (dest / "iptables_1%3a1.8.11_amd64.deb").write_bytes(b"rebuilt")
        (dest / "nftables_1_amd64.deb").write_bytes(b"new")
        return absent


def _diff(a: Path, b: Path) -> dict[str, Any]:
    home = Home(Path("/nonexistent"))
    return diff.compare(*(diff.load(path, trust=None, home=home) for path in (a, b)))


def test_settings(pair: Pair) -> None:
    found = _diff(pair.old, pair.new)["settings"]
    assert list(found["added"]) == ["site_may", "site_must"]
    assert found["removed"] == ["site_gone"]
    # A renamed setting that A never had is not listed.
    assert found["renamed"] == {"site_was": "site_now"}
    assert found["changed"] == {
        "site_port": {
            "default": {"from": 80, "to": "80"},
            "type": {"from": "int", "to": "str"},
        },
        "site_mode": {
            "default": {"from": "a", "to": "b"},
            "choices": {"from": ["a", "b"], "to": ["a", "b", "c"]},
        },
        "site_now": {"default": {"from": "x", "to": "y"}},
    }


def test_schema_and_migrations(pair: Pair) -> None:
    found = _diff(pair.old, pair.new)
    assert found["migrations"] == {
        "added": [
            {
                "revision": "0002",
                "down_revision": "0001",
                "version": 2,
                "title": "A note on each item.",
            }
        ],
        "removed": [],
    }
    assert found["schema"] == {
        "from": {"head": 1, "lowest_compatible": 1},
        "to": {"head": 2, "lowest_compatible": 1},
        "old_release_runs_on_it": True,
    }


def test_components_versions_and_files(pair: Pair) -> None:
    found = _diff(pair.old, pair.new)
    (app,) = found["components"]["changed"].values()
    assert (app["layers"], app["new_layers"], app["new_bytes"]) == (2, 1, len(NEW_LAYER))
    assert found["components"]["added"] == found["components"]["removed"] == {}
    assert found["wheels"] == {
        "added": {},
        "removed": {},
        "changed": {"airlifttiny": {"from": ["1.0"], "to": ["1.1"]}},
        "rebuilt": [],
    }
    assert found["packages"] == {
        "added": {"debian-13/nftables": ["1"]},
        "removed": {},
        "changed": {"debian-13/docker.io": {"from": ["26.1.5+dfsg1-9+b4"], "to": ["27"]}},
        "rebuilt": ["debian-13/iptables"],
    }
    assert found["content"]["added"] == ["docs/NEW.md", "roles/site/vars/renamed.yml"]
    assert found["content"]["removed"] == ["docs/TRUST.md"]
    assert {"README.md", "bundle/release.yml"} < set(found["content"]["changed"])


def test_bill_of_materials_and_vulnerabilities(pair: Pair) -> None:
    found = _diff(pair.old, pair.new)
    assert found["sbom"] == {
        "packages": {"from": 3, "to": 3},
        "added": {"pkg:pypi/b": ["1"]},
        "removed": {"pkg:pypi/a": ["1"]},
        "changed": {"pkg:deb/debian/openssl": {"from": ["3.0"], "to": ["3.1"]}},
    }
    flaws = found["vulnerabilities"]
    assert [f["id"] for f in flaws["fixed"]] == ["CVE-2026-0001"]
    # Another version of the package does not make the second finding new.
    assert [f["id"] for f in flaws["new"]] == ["CVE-2026-0003"]
    assert flaws["open"] == 2


def test_what_was_not_scanned_is_not_called_fixed() -> None:
    unscanned = {"scanned": False, "reason": "no scanner here", "scanner": None, "findings": []}
    for pair in ((_scan(OLD_FLAWS), unscanned), (unscanned, _scan(OLD_FLAWS))):
        found = vulnerabilities(*pair)
        assert list(found) == ["unknown"]
        assert "no scanner here" in found["unknown"]


def test_the_bytes_to_carry_are_those_of_the_bundles(pair: Pair) -> None:
    carry = _diff(pair.old, pair.new)["carry"]
    assert carry["full_bytes"] == pair.new.stat().st_size
    assert carry["delta_bytes"] == pair.delta.stat().st_size
    assert carry == _diff(pair.old, pair.delta)["carry"]
    # No delta leads to an older release.
    assert _diff(pair.new, pair.old)["carry"]["delta_bytes"] is None


def test_a_delta_and_an_imported_release_say_the_same_as_full_bundles(
    pair: Pair, keys: Keys, home: Home, quick: None
) -> None:
    run_import(pair.old, keys.trust(), home)
    run_import(pair.delta, keys.trust(), home)
    wanted = _diff(pair.old, pair.new)
    for a, b in (
        (pair.old, pair.delta),
        (home.release("1.0.0"), pair.new),
        (home.release("1.0.0"), home.current),
    ):
        found = _diff(a, b)
        for side in ("from", "to"):
            found[side].pop("path")
        assert found == {
            **wanted,
            **{s: {k: v for k, v in wanted[s].items() if k != "path"} for s in ("from", "to")},
        }


def test_the_same_release_has_no_difference(pair: Pair) -> None:
    found = _diff(pair.new, pair.delta)
    assert found["same_release"] is True
    assert found["components"]["changed"] == {}
    assert not any(found["content"].values())
    for name in ("settings", "migrations", "sbom"):
        assert not any(v for k, v in found[name].items() if k != "packages"), name
    assert (found["vulnerabilities"]["new"], found["vulnerabilities"]["fixed"]) == ([], [])


def test_what_a_delta_leaves_out_of_about(
    pair: Pair, tree: Path, tmp_path: Path, keys: Keys
) -> None:
    """Where A has the member too, nothing is missing; otherwise the answer reports it."""
    wanted = options(tree, tmp_path, keys, version="1.2.0", serial=3)
    full = run_build(wanted, Suppliers()).path
    wanted = options(tree, tmp_path, keys, version="1.3.0", serial=4, since=(full,))
    delta = run_build(wanted, Suppliers())
    assert "about/settings.json" in {m.path for m in delta.manifest.left_out}
    assert _diff(full, delta.path)["settings"] == {
        "added": {},
        "removed": [],
        "renamed": {},
        "changed": {},
    }
    unknown = _diff(pair.old, delta.path)["settings"]["unknown"]
    assert f"{delta.path.name} is a delta that omits about/settings.json" in unknown


def test_releases_without_these_documents(craft: Craft) -> None:
    found = _diff(craft(Recipe()), craft(Recipe("1.1.0", 2)))
    for name, document in DOCUMENTS.items():
        assert found[name] == {"unknown": f"release 1.0.0 does not have {document.path}"}


@pytest.mark.parametrize("text", [b"{}", b"[]", b"null", b"{", b"[" * 100_000, b'{"settings": 1}'])
def test_documents_of_another_form(text: bytes, craft: Craft) -> None:
    path = DOCUMENTS["settings"].path
    found = _diff(
        craft(Recipe(files={path: text})), craft(Recipe("1.1.0", 2, files={path: text + b" "}))
    )
    assert "has an unknown form" in found["settings"]["unknown"]


def test_an_altered_document_is_refused(pair: Pair, tmp_path: Path) -> None:
    raw = pair.old.read_bytes()
    assert raw.count(b"CVE-2026-0001") == 1
    bad = tmp_path / "bad.tar"
    bad.write_bytes(raw.replace(b"CVE-2026-0001", b"CVE-2026-0009"))
    with pytest.raises(AirliftError) as caught:
        _diff(bad, pair.new)
    assert caught.value.kind is Kind.ALTERED


def _text(a: Path, b: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main(["diff", str(a), str(b), "--home", "/nonexistent", *more]) == 0
    return capsys.readouterr().out


def test_the_command(pair: Pair, keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(pair.old.parent)
    text = _text(pair.old, pair.new, capsys)
    assert text.count("SIGNATURES NOT CHECKED") == 2
    assert "WARNING: site_must is new and required" in text
    assert "0002  A note on each item." in text
    assert "NEW        CVE-2026-0003 (low) in app, zlib 3.0" in text
    assert 'default: 80 to "80"' in text
    assert "No difference" not in text
    assert "docs/NEW.md" not in text
    assert "added    docs/NEW.md" in _text(pair.old, pair.new, capsys, "-v")
    trusted = ["--allowed-signers", str(keys.signers()), "--json"]
    found = json.loads(_text(pair.old, pair.new, capsys, *trusted))
    assert found["to"]["signers"][0]["identity"] == "release@airlift.example"
    assert {
        k: v for k, v in found.items() if k not in ("ok", "command", "format", "from", "to")
    } == {k: v for k, v in _diff(pair.old, pair.new).items() if k not in ("from", "to")}
    assert snapshot(pair.old.parent) == before
    # Another signer's key is refused, as by all commands.
    stranger = ["--allowed-signers", str(keys.signers(keys.line("stranger")))]
    command = ["diff", str(pair.old), str(pair.new), "--home", "/nonexistent", *stranger]
    assert main(command) == Kind.UNKNOWN_SIGNER.exit_code
    same = _text(pair.new, pair.new, capsys)
    assert "WARNING" not in same
    assert "No difference: components, schema, migrations, settings" in same


def _rules(**more: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["upgrade"].update(more)


@pytest.mark.parametrize(
    ("edit", "phrase"),
    [
        (lambda d: d.update(image_source="registry"), "THE IMAGE SOURCE CHANGES, from debian"),
        (_rules(minimum_version="1.0.5"), "1.1.0 upgrades from 1.0.5 or newer, not from 1.0.0"),
        (_rules(required_stops=["0.9.0", "1.0.10"]), "a site must first upgrade to 1.0.10\n"),
        (lambda d: d["schema"].update(head=3, lowest_compatible=2), "1.0.0 cannot run on the"),
        (lambda d: d.update(version="0.9.0", serial=1), "B is the older release"),
    ],
)
def test_warnings(
    edit: Callable[[dict[str, Any]], None],
    phrase: str,
    craft: Craft,
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, b = craft(Recipe("1.0.0", 2)), Recipe("1.1.0", 3)
    assert "WARNING" not in _text(a, craft(b), capsys)
    b.edit = edit
    assert f"WARNING: {phrase}" in _text(a, craft(b), capsys)


def test_nothing_that_is_shown_moves_the_cursor(
    craft: Craft, capsys: pytest.CaptureFixture[str]
) -> None:
    path = DOCUMENTS["migrations"].path
    evil = {"revision": "1", "title": "x\x1b[2J\nWARNING: none"}
    files = [json.dumps({"migrations": found}).encode() for found in ([], [evil])]
    a, b = (craft(Recipe(f"1.{n}.0", n + 1, files={path: text})) for n, text in enumerate(files))
    text = _text(a, b, capsys)
    assert "x?[2J?WARNING: none" in text
    assert "\x1b" not in text


def test_components_that_come_and_go(craft: Craft, capsys: pytest.CaptureFixture[str]) -> None:
    a = craft(Recipe())
    b = craft(Recipe("1.1.0", 2, without=("redis",)))
    assert _diff(a, b)["components"]["removed"] == {"redis": "1.2.3"}
    assert "REMOVED (was 1.2.3)" in _text(a, b, capsys)
    added = _diff(b, a)["components"]["added"]["redis"]
    assert (added["version"], added["new_layers"]) == ("1.2.3", 1)
