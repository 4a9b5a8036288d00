"""Builds are reproducible, and errors of the input are reported before long work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bundle.builder import build, completeness, content, release, verifier_pyz
from bundle.builder.suppliers import Real
from bundle.cli.main import main, make_parser
from bundle.core.events import Log
from bundle.errors import AirliftError, Kind
from bundle.verify import checks
from tests.unit.bundle.bundlekit import ABSENT, IDENTITY, TREE, FakeSuppliers, Keys, make_tree


@pytest.fixture
def no_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "COLLECTIONS", ())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")


def options(tree: Path, out: Path, *keys: Path, version: str | None = None) -> build.Options:
    return build.Options(tree=tree, out=out, keys=keys, identity="x@y", version=version)


def run(wanted: build.Options, suppliers: build.Suppliers) -> build.Built:
    return build.build(wanted, suppliers, log=lambda _: None)


@pytest.mark.usefixtures("no_collections")
def test_the_same_input_gives_the_same_bundle(
    full: build.Built, tree: Path, tmp_path: Path, keys: Keys, suppliers: FakeSuppliers
) -> None:
    """Ed25519 signatures are deterministic; with other key types only the signatures differ."""
    wanted = replace(options(tree, tmp_path, keys.key()), identity=IDENTITY)
    again = run(wanted, suppliers)
    assert again.path.read_bytes() == full.path.read_bytes()
    assert again.sha256 == full.sha256


def test_what_is_in_it(full: build.Built, keys: Keys) -> None:
    with checks.opened(full.path, trust=keys.trust(), home=None) as bundle:
        data = bundle.manifest.data
    paths = [member["path"] for member in data["members"]]
    assert paths[0] == "verify.pyz"
    tops = list(dict.fromkeys(path.partition("/")[0] for path in paths[1:]))
    assert tops == ["content", "about", "wheels", "packages", "oci", "blobs"]
    assert "content/roles/site/defaults/main.yml" in paths
    assert "packages/debian-13/iptables_1%3a1.8.11_amd64.deb" in paths
    assert not [path for path in paths if "pycache" in path]
    # Two images of two layers share one layer; the stray blob is omitted.
    assert len([path for path in paths if path.startswith("blobs/")]) == 3 + 2 + 2
    assert data["created"] == "2026-01-01T00:00:00Z"
    assert set(data["zones"]) == {"app", "data"}
    assert data["absent"] == {
        "grafana": {"reason": "not in Debian"},
        "packages-debian-12": {"reason": "no network"},
    }


def test_sums_beside_it(full: build.Built) -> None:
    text = (full.path.parent / "SHA256SUMS").read_text()
    assert text == f"{full.sha256}  {full.path.name}\n"
    assert sorted(p.name for p in full.path.parent.iterdir()) == [
        "SHA256SUMS",
        "SHA256SUMS.sig",
        full.path.name,
    ]


@pytest.mark.usefixtures("no_collections")
def test_sums_name_what_is_still_there(
    tree: Path, tmp_path: Path, keys: Keys, suppliers: FakeSuppliers
) -> None:
    run(options(tree, tmp_path, keys.key()), suppliers)
    second = run(options(tree, tmp_path, keys.key(), version="1.1.0"), suppliers)
    assert second.manifest.serial == 2
    assert "release.yml" in second.notes[0]
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count(": OK") == 2
    (tmp_path / "airlift-1.0.0-amd64.tar").unlink()
    run(options(tree, tmp_path, keys.key(), version="1.1.0"), suppliers)
    assert (tmp_path / "SHA256SUMS").read_text().count("\n") == 1


def _refused(wanted: build.Options, suppliers: build.Suppliers) -> AirliftError:
    with pytest.raises(AirliftError) as caught:
        run(wanted, suppliers)
    assert caught.value.fix
    return caught.value


class Never(FakeSuppliers):
    """Suppliers that fail when work begins although a missing key or file makes it useless."""

    def __init__(self) -> None:
        pass

    def wheels(self, requirements: Path, dest: Path, log: Log) -> None:
        raise AssertionError


@pytest.mark.usefixtures("no_collections")
def test_no_key_no_work(tree: Path, tmp_path: Path, keys: Keys) -> None:
    error = _refused(options(tree, tmp_path / "out"), Never())
    assert (error.kind, "ssh-keygen -t" in error.fix) == (Kind.SIGNING, True)
    error = _refused(options(tree, tmp_path / "out", tmp_path / "none"), Never())
    assert error.kind is Kind.SIGNING
    bad = tmp_path / "bad"
    bad.write_text("not a key")
    bad.chmod(0o600)
    assert _refused(options(tree, tmp_path / "out", bad), Never()).kind is Kind.SIGNING
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_collections")
def test_a_key_whose_agent_is_gone(
    tree: Path, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "none"))
    public = tmp_path / "only.pub"
    public.write_bytes(Path(f"{keys.key()}.pub").read_bytes())
    error = _refused(options(tree, tmp_path / "out", public), Never())
    assert (error.kind, "ssh-add" in error.fix) == (Kind.SIGNING, True)


@pytest.mark.usefixtures("no_collections")
def test_a_failed_build_leaves_the_last_one(
    tree: Path, tmp_path: Path, keys: Keys, suppliers: FakeSuppliers
) -> None:
    first = run(options(tree, tmp_path, keys.key()), suppliers)
    before = first.path.read_bytes()

    class Broken(FakeSuppliers):
        def packages(self, dest: Path, log: Log) -> dict[str, dict[str, str]]:
            dest.mkdir(parents=True)
            return {}

    assert _refused(options(tree, tmp_path, keys.key()), Broken()).kind is Kind.BUILD_INPUT
    assert first.path.read_bytes() == before
    assert not list(tmp_path.glob(".build-*"))


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("roles/site/.hidden", "forbidden form"),
        ("roles/site/a b", "forbidden form"),
        ("roles/site/ä", "forbidden form"),
    ],
)
@pytest.mark.usefixtures("no_collections")
def test_names_that_cannot_travel(name: str, phrase: str, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", b"")
    (tree / name).write_text("x")
    with pytest.raises(AirliftError, match=phrase):
        content.collect(tree)


@pytest.mark.usefixtures("no_collections")
def test_links_and_missing_parts(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", b"")
    (tree / "docs" / "link.md").symlink_to("/etc/passwd")
    with pytest.raises(AirliftError, match="symbolic link"):
        content.collect(tree)
    (tree / "docs" / "link.md").unlink()
    (tree / "LICENSE").unlink()
    with pytest.raises(AirliftError, match="lacks LICENSE"):
        content.collect(tree)


def test_git_decides_what_belongs_to_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "COLLECTIONS", ())
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    tree = make_tree(tmp_path / "tree", b"")
    (tree / ".gitignore").write_text("__pycache__/\n*.secret\n")
    (tree / "roles" / "vault.secret").write_text("x")
    date = "1700000000 +0000"
    env = os.environ | {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=tree, env=env, check=True)
    (tree / "roles" / "new.yml").write_text("not yet committed")
    (tree / "README.md").unlink()
    (tree / "README.md").write_text("changed")
    found = content.collect(tree)
    assert "content/roles/new.yml" in found
    assert "content/roles/vault.secret" not in found
    wanted = release.load(tree, version=None, serial=None)
    assert wanted.created == "2023-11-14T22:13:20Z"
    assert re.fullmatch(r"[0-9a-f]{40}-dirty", wanted.revision)
    with pytest.raises(AirliftError, match="2 files that are not committed: ") as caught:
        release.check_committed(tree)
    assert {"README.md", "roles/new.yml"} == set(caught.value.what.split(": ")[1].split(", "))
    subprocess.run([*git, "add", "."], cwd=tree, check=True)
    subprocess.run([*git, "commit", "-qm", "y"], cwd=tree, env=env, check=True)
    release.check_committed(tree)
    assert re.fullmatch(r"[0-9a-f]{40}", release.load(tree, version=None, serial=None).revision)


def test_without_a_commit_a_date_must_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    tree = make_tree(tmp_path / "tree", b"")
    with pytest.raises(AirliftError) as caught:
        release.load(tree, version=None, serial=None)
    assert "SOURCE_DATE_EPOCH" in caught.value.fix


@pytest.mark.usefixtures("no_collections")
def test_versions_and_serials(tree: Path) -> None:
    def serial(version: str | None, number: int | None = None) -> int:
        return release.load(tree, version=version, serial=number).serial

    assert serial(None) == serial("1.0.0") == 1
    assert serial("1.1.0") == 2
    assert serial("0.9.0", 7) == 7
    with pytest.raises(AirliftError, match="older than"):
        serial("0.9.0")
    with pytest.raises(AirliftError, match="not a version"):
        serial("latest")


def test_release_file_agrees_with_the_project() -> None:
    data = yaml.safe_load((TREE / "bundle" / "release.yml").read_text())
    found = re.search(r'^version = "(.+)"$', (TREE / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    assert data["version"] == found[1]


def test_a_release_has_every_image_and_its_source_is_written_down() -> None:
    """Without options, `build` uses the recorded source, never the one that answers today."""
    parsed = make_parser().parse_args(["build", "--key", "x"])
    assert (parsed.source, parsed.allow_absent) == (None, [])
    wanted = release.load(TREE, version=None, serial=None)
    lock = TREE / "bundle" / "images.lock.yml"
    source, absent = Real().settle(lock, parsed.source or wanted.source, lambda _: None)
    assert source == wanted.source == "registry"
    completeness.check_absent(absent, wanted.allow_absent)
    assert set(Real().settle(lock, "debian", lambda _: None)[1]) == {"grafana"}
    made = subprocess.run(
        ["make", "--dry-run", "bundle"], cwd=TREE, capture_output=True, text=True, check=True
    )
    command = made.stdout.rstrip().splitlines()[-1]
    assert " bundle build " in command
    assert "--source" not in command
    assert "--allow-absent" not in command


def test_auto_as_the_source_of_a_release_is_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", b"")
    file = tree / "bundle" / "release.yml"
    file.write_text(file.read_text().replace("source: debian", "source: auto"))
    with pytest.raises(AirliftError, match=r"release\.yml cannot be used: .*source"):
        release.load(tree, version=None, serial=None)


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize("source", ["auto", "debian"])
def test_a_build_that_would_lack_something_is_refused_before_long_work_unless_told(
    source: str, tmp_path: Path, keys: Keys
) -> None:
    class NoWork(FakeSuppliers):
        def wheels(self, requirements: Path, dest: Path, log: Callable[[str], None]) -> None:
            raise AssertionError

    tree = make_tree(tmp_path / "tree", FakeSuppliers().wheelhouse[1])
    file = tree / "bundle" / "release.yml"
    file.write_text(file.read_text().replace(ABSENT, "allow_absent: []"))
    wanted = replace(options(tree, tmp_path / "out", keys.key()), source=source)
    with pytest.raises(AirliftError) as caught:
        build.build(wanted, NoWork(), log=lambda _: None)
    assert caught.value.what == (
        "the bundle would lack grafana (not in Debian); packages-debian-12 (no network)"
    )
    option = "--allow-absent grafana packages-debian-12"
    assert caught.value.fix.endswith(option)
    told = make_parser().parse_args(["build", *option.split()]).allow_absent
    for allowed in (told, ["all"]):
        wanted = replace(wanted, allow_absent=tuple(allowed))
        built = build.build(wanted, FakeSuppliers(), log=lambda _: None)
        assert set(built.manifest.data["absent"]) == {"grafana", "packages-debian-12"}
    wanted = replace(wanted, allow_absent=("grafana",))
    with pytest.raises(AirliftError, match=r"would lack packages-debian-12 \(no network\)\n"):
        build.build(wanted, NoWork(), log=lambda _: None)


def test_the_collections_come_pruned_and_with_what_they_need() -> None:
    names = content._with_dependencies(content.COLLECTIONS)
    assert set(content.COLLECTIONS) < set(names)
    root = content._collection("community.docker")
    files = list(content._collection_files(root))
    assert "plugins/modules/docker_container.py" in files
    assert "MANIFEST.json" in files
    assert "COPYING" in files
    assert not [f for f in files if f.startswith(("tests/", "docs/", "changelogs/", "CHANGELOG"))]


def test_the_verifier_needs_the_standard_library_only(tmp_path: Path) -> None:
    raw = verifier_pyz.make(TREE / "bundle")
    assert raw == verifier_pyz.make(TREE / "bundle")
    path = tmp_path / "verify.pyz"
    path.write_bytes(raw)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.startswith("bundle/builder/")]
    # -S excludes site-packages.
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(path), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    commands = re.findall(r"^    ([a-z]+) ", done.stdout, re.MULTILINE)
    assert commands == ["verify", "inspect", "import"]


def test_inspect(full: build.Built, keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", "/nonexistent"]
    assert main(["inspect", str(full.path), *home]) == 0
    text = capsys.readouterr().out
    assert "NOT CHECKED" in text
    assert re.search(r"^app +1\.2\.3 .* 1 of 2 ", text, re.MULTILINE)
    assert "1 are shared" in text
    assert "not in Debian" in text
    trusted = ["--allowed-signers", str(keys.signers())]
    assert main(["inspect", str(full.path), *home, *trusted, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trusted"] is True
    assert found["signers"][0]["identity"] == "release@airlift.example"
    assert found["layers"]["shared"] == 1
    assert found["layers"]["bytes_saved"] == 5400
    assert found["components"]["app"]["version"] == "1.2.3"
    assert found["serial"] == 1


def test_what_git_does_not_know_is_not_signed(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's secret once lay untracked in the tree."""
    monkeypatch.setattr(content, "COLLECTIONS", ())
    suppliers = FakeSuppliers()
    tree = make_tree(tmp_path / "tree", suppliers.wheelhouse[1])
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=tree, check=True)
    secret = tree / "inventories" / "example" / "customer_secret.yml"
    secret.write_text("postgres_password: x\n")
    options = build.Options(tree=tree, out=tmp_path, keys=(keys.key(),), identity="x")
    with pytest.raises(AirliftError, match=r"inventories/example/customer_secret\.yml") as caught:
        build.build(options, suppliers, log=lambda _: None)
    assert (caught.value.kind, list(tmp_path.glob("*.tar"))) == (Kind.BUILD_INPUT, [])
    built = build.build(replace(options, allow_dirty=True), suppliers, log=lambda _: None)
    names = {member.path for member in built.manifest.contents}
    assert "content/inventories/example/customer_secret.yml" in names
