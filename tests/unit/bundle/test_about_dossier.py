"""The dossier and single members show a security officer exactly what was signed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bundle.builder import build, content
from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.jumphost import venv
from bundle.jumphost.store import Home
from bundle.review import dossier
from bundle.verify import checks
from tests.unit.bundle.aboutkit import (
    DEFAULT,
    Images,
    debian,
    layer,
    metadata,
    subject,
    written,
)
from tests.unit.bundle.bundlekit import (
    IDENTITY,
    TREE,
    Keys,
    Recipe,
    check,
    join,
    records,
    run_import,
)

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """A page as a browser sees it: what it loads, runs and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.shown += data


@dataclasses.dataclass(frozen=True)
class Dist:
    old: Path
    new: Path
    delta: Path


NEW = DEFAULT | {
    "app": [
        DEFAULT["app"][0],
        layer({"srv/lib/tiny-1.1.dist-info/METADATA": metadata("Tiny", "1.1", "License: MIT")}),
    ],
    "nginx": [layer(debian("nginx 1.30.6-2"))],
}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory, tree: Path, keys: Keys) -> Dist:
    """Return releases 1.0.0 and 1.1.0, scanned with different data, and the delta between them."""
    folder = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "COLLECTIONS", ())
        patch.setenv("SOURCE_DATE_EPOCH", "1767225600")

        def make(version: str, layers: dict[str, list[bytes]], issue: str, *since: Path) -> Path:
            data = folder / f"{issue}.json"
            known = {"releases": {"trixie": {"status": "open", "urgency": "high"}}}
            data.write_text(json.dumps({"libc6": {issue: known}}))
            wanted = build.Options(
                tree=tree,
                out=folder,
                keys=(keys.key(),),
                identity=IDENTITY,
                version=version,
                since=since,
                vulnerability_data=data,
            )
            return build.build(wanted, Images(layers=layers), log=lambda _: None).path

        old = make("1.0.0", DEFAULT, "CVE-2026-0001")
        new = make("1.1.0", NEW, "CVE-2026-0002")
        delta = make("1.1.0", NEW, "CVE-2026-0002", old)
    return Dist(old, new, delta)


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main([*arguments, "--home", "/nonexistent"])
    out, err = capsys.readouterr()
    return code, out, err


def trusted(keys: Keys) -> list[str]:
    return ["--allowed-signers", str(keys.signers())]


def told(path: Path, keys: Keys) -> dict[str, str]:
    """Return what a release describes; a delta omits what its base describes, too."""
    with checks.opened(path, trust=keys.trust(), home=None) as bundle:
        return {m.path: m.sha256 for m in bundle.manifest.contents if m.path.startswith("about/")}


def test_a_delta_says_of_the_release_what_the_full_bundle_says(dist: Dist, keys: Keys) -> None:
    assert told(dist.delta, keys) == told(dist.new, keys) != {}
    full, delta = (check(path, keys.trust()) for path in (dist.new, dist.delta))
    assert full.manifest.release_sha256 == delta.manifest.release_sha256


def page_of(path: Path, keys: Keys) -> Page:
    done = cat(path, "about/dossier.html", keys)
    assert done.returncode == 0, done.stderr
    return Page(done.stdout.decode())


def test_the_page_needs_nothing_from_anywhere(
    dist: Dist, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    page = page_of(dist.new, keys)
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(tags)
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "action", "style")
            assert not name.startswith("on")
            if name == "href":
                assert str(value).startswith("#")
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {str(a["href"])[1:] for _, a in page.tags if "href" in a}
    assert links <= ids
    for needle in ("url(", "@import", "http:", "https:"):
        style = page.shown.partition(":root")[2].partition("@media print")[0]
        assert needle not in style
    policy = next(a for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in str(policy["content"])


def test_what_the_page_says(dist: Dist, keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    shown = page_of(dist.new, keys).shown
    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", f"{keys.key()}.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    for needle in (
        "Airlift 1.1.0",
        "2026-01-01T00:00:00Z",
        IDENTITY,
        fingerprint,
        "A page cannot vouch for itself",
        "CVE-2026-0002",
        "Not everything was scanned",
        "redis-server",
        "not stated in METADATA",
        "about/sbom/release.cdx.json",
        "Not compared here",
    ):
        assert needle in shown, needle
    with checks.opened(dist.new, trust=None, home=None) as bundle:
        for component in bundle.manifest.components.values():
            assert component["manifest_digest"] in shown


def test_the_real_documents_give_commands_and_flows(tmp_path: Path, tree: Path) -> None:
    one = dataclasses.replace(subject(tmp_path, tree), tree=TREE)
    shown = Page(written(tmp_path, one)["dossier.html"].decode()).shown
    assert "ssh-keygen -Y verify" in shown
    assert "BUNDLE=/media/usb/airlift-1.0.0-amd64.tar" in shown
    assert "application to the database" in shown
    assert "grafana" in shown
    assert "Not scanned" in shown


def test_what_could_not_be_read_is_on_the_page(tmp_path: Path, tree: Path) -> None:
    images = {"odd": [layer({"bin/program": "ELF"})]}
    shown = Page(written(tmp_path, subject(tmp_path, tree, images))["dossier.html"].decode()).shown
    assert "odd is not fully known" in shown
    assert "no package database" in shown


def test_hostile_names_are_text(tmp_path: Path, tree: Path) -> None:
    evil = f"x{EVIL}"
    image = layer(
        {
            "var/lib/dpkg/status": f"Package: {evil}\nVersion: 1{EVIL}\nArchitecture: all\n",
            "etc/os-release": f"VERSION_CODENAME={EVIL}\n",
            "srv/a-1.dist-info/METADATA": metadata(EVIL, EVIL, f"License: {EVIL}"),
        }
    )
    one = subject(
        tmp_path, tree, {"app": [image]}, signers=(f"{EVIL} namespaces=x ssh-ed25519 AAAA",)
    )
    one.components["app"]["drift"] = f"'\"{EVIL}"
    one.absent["grafana"]["reason"] = f"</div>{EVIL}"
    page = Page(written(tmp_path, one)["dossier.html"].decode())
    assert "script" not in [tag for tag, _ in page.tags]
    assert page.shown.count(EVIL) >= 5
    # Control: in a plain page the parser does see the name as a tag.
    assert "script" in [tag for tag, _ in Page(f"<p>{EVIL}</p>").tags]


def test_the_command_says_who_really_signed_and_what_changed(
    dist: Dist, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    command = ["dossier", str(dist.new), "--previous", str(dist.old), "-o", str(out)]
    code, text, _ = run([*command, *trusted(keys), "--json"], capsys)
    assert code == 0, text
    answer = json.loads(text)
    assert answer["signers"][0]["identity"] == IDENTITY
    changes = answer["changes"]
    components = changes["components"]
    assert components["changed"]["app"]["from"] == components["changed"]["app"]["to"] == "1.2.3"
    assert list(components["added"]) == ["nginx"]
    assert changes["sbom"]["changed"]["pkg:pypi/tiny"] == {"from": ["1.0"], "to": ["1.1"]}
    found = changes["vulnerabilities"]
    assert {one["id"] for one in found["fixed"]} == {"CVE-2026-0001"}
    assert {one["id"] for one in found["new"]} == {"CVE-2026-0002"}
    shown = Page(out.read_text()).shown
    assert "Signature verified when this page was made, at 20" in shown
    # The page names its bundle, and what was not checked.
    assert answer["manifest_sha256"] in shown
    assert "Images and all other members were not hashed" in shown
    assert "always, by the list" in shown
    assert "vouch" not in shown
    assert "Since 1.0.0, serial 1" in shown
    for told in ("CVE-2026-0001", "CVE-2026-0002", "pkg:pypi/tiny", "rebuilt, same version"):
        assert told in shown
    assert not list(tmp_path.glob("*.part"))


def test_a_page_replaces_nothing_but_a_page(
    dist: Dist, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "the.tar"
    bundle.write_bytes(dist.new.read_bytes())
    command = ["dossier", str(bundle), *trusted(keys)]
    code, _, err = run([*command, "-o", str(bundle)], capsys)
    assert code == Kind.OUTPUT.exit_code
    assert "it is no dossier" in err
    assert bundle.read_bytes() == dist.new.read_bytes()
    code, _, err = run([*command, "-o", str(tmp_path)], capsys)
    assert code == Kind.OUTPUT.exit_code
    assert "directory" in err
    code, _, err = run([*command, "-o", str(tmp_path / "none" / "page.html")], capsys)
    assert code == Kind.OUTPUT.exit_code, err
    out = tmp_path / "page.html"
    for _ in range(2):
        assert run([*command, "-o", str(out)], capsys)[0] == 0


def test_a_stranger_signed(
    dist: Dist, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    strangers = ["--allowed-signers", str(keys.signers(keys.line("stranger")))]
    code, _, err = run(["dossier", str(dist.new), "-o", str(out), *strangers], capsys)
    assert code == Kind.UNKNOWN_SIGNER.exit_code, err
    code, _, _ = run(["dossier", str(dist.new), "-o", str(out)], capsys)
    assert code == Kind.SIGNERS_FILE.exit_code
    assert not out.exists()


def test_a_bundle_that_says_nothing_of_itself(
    small: Path, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    code, _, err = run(["dossier", str(small), "-o", str(out), *trusted(keys)], capsys)
    assert code == 0, err
    shown = Page(out.read_text()).shown
    assert "This bundle carries no report" in shown
    assert "no list of packages" in shown
    assert "no statement about its making" in shown


def test_signed_nonsense_is_refused(
    keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (b"no JSON", b'{"packages": 1}'):
        bundle = Recipe(files={"about/licences.json": text}).make(tmp_path / "b.tar", keys)
        out = tmp_path / "page.html"
        code, _, err = run(["dossier", str(bundle), "-o", str(out), *trusted(keys)], capsys)
        assert code == Kind.MANIFEST.exit_code, err
        assert not out.exists()


def altered(source: Path, target: Path, name: str) -> Path:
    """Return the same bundle with one bit of a member's last byte changed."""
    parts = records(source.read_bytes())
    part = next(part for part in parts if part.name == name)
    data = bytearray(part.data)
    data[int(part.header[124:135], 8) - 1] ^= 1
    part.data = bytes(data)
    target.write_bytes(join(parts))
    return target


def cat(path: Path, member: str, keys: Keys) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "bundle", "inspect", str(path), "--cat", member]
    home = ["--home", "/nonexistent"]
    return subprocess.run(
        [*command, *trusted(keys), *home], cwd=TREE, capture_output=True, check=False
    )


def test_a_member_is_written_as_it_was_signed(dist: Dist, keys: Keys) -> None:
    member = "about/sbom/release.cdx.json"
    done = cat(dist.new, member, keys)
    assert done.returncode == 0, done.stderr
    part = next(p for p in records(dist.new.read_bytes()) if p.name == member)
    assert done.stdout == part.data[: int(part.header[124:135], 8)]


def test_nothing_of_a_bad_member_is_written(dist: Dist, keys: Keys, tmp_path: Path) -> None:
    member = "about/vulnerabilities.json"
    bad = altered(dist.new, tmp_path / "bad.tar", member)
    done = cat(bad, member, keys)
    assert (done.returncode, done.stdout) == (Kind.ALTERED.exit_code, b"")
    # Damage of other members is reported by `verify` only.
    assert cat(bad, "about/packages.json", keys).returncode == 0
    out = tmp_path / "page.html"
    command = [sys.executable, "-m", "bundle", "dossier", str(bad), "-o", str(out)]
    made = subprocess.run([*command, *trusted(keys)], cwd=TREE, capture_output=True, check=False)
    assert made.returncode == Kind.ALTERED.exit_code
    assert not out.exists()


def test_a_large_member_and_a_reader_that_stops_early(keys: Keys, tmp_path: Path) -> None:
    large = bytes(range(256)) * (40 << 10)
    bundle = Recipe(files={"about/large": large}).make(tmp_path / "b.tar", keys)
    assert cat(bundle, "about/large", keys).stdout == large
    command = f"{sys.executable} -m bundle inspect {bundle} --cat about/large"
    command += f" --allowed-signers {keys.signers()} | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=TREE, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"\x000\n", b"")
    bad = altered(bundle, tmp_path / "bad.tar", "about/large")
    assert cat(bad, "about/large", keys).stdout == b""


def test_a_member_that_is_not_there(dist: Dist, keys: Keys) -> None:
    done = cat(dist.new, "about/dosier.html", keys)
    assert done.returncode == Kind.USAGE.exit_code
    assert b"such as: about/dossier.html" in done.stderr


def test_no_member_on_nobodys_word_and_no_json(
    dist: Dist, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["inspect", str(dist.new), "--cat", "about/packages.json"]
    code, out, _ = run(wanted, capsys)
    assert (code, out) == (Kind.SIGNERS_FILE.exit_code, "")
    code, _, _ = run([*wanted, *trusted(keys), "--json"], capsys)
    assert code == Kind.USAGE.exit_code


def test_intended_signers_with_a_key_that_is_none() -> None:
    signed = dossier.intended(['"a b" namespaces="x" ssh-ed25519 ???'])
    assert signed.rows[0]["fingerprint"] == "unknown"
    assert signed.rows[0]["identity"] == '"a b"'


def test_rendering_refuses_a_manifest_of_another_shape() -> None:
    facts: dict[str, Any] = {"components": {}}
    found = {"licences": None, "vulnerabilities": None, "provenance": None}
    with pytest.raises(AirliftError):
        dossier.render(facts, found, dossier.intended([]))


DOC = (TREE / "docs" / "SBOM.md").read_text()


def test_the_documents_commands_run_as_they_are_written(
    dist: Dist, keys: Keys, tmp_path: Path
) -> None:
    script = re.findall(r"```sh\n(.*?)```", DOC, re.DOTALL)[0]
    env = os.environ | {"BUNDLE": str(dist.new), "SIGNERS": str(keys.signers())}
    take = 'tar -xOf "$BUNDLE" verify.pyz > verify.pyz\n'
    subprocess.run(["bash", "-ec", take + script], cwd=tmp_path, env=env, check=True)
    assert "Airlift 1.1.0" in (tmp_path / "dossier.html").read_text()
    assert json.loads((tmp_path / "release.cdx.json").read_bytes())["bomFormat"] == "CycloneDX"


def test_the_document_names_every_member(dist: Dist, keys: Keys) -> None:
    named = re.findall(r"^\| `(about/[^`]+)` \|", DOC, re.MULTILINE)
    patterns = [re.escape(name).replace("<component>", r"[a-z0-9-]+") for name in named]
    for path in told(dist.new, keys):
        assert [p for p in patterns if re.fullmatch(p, path)], path
    for pattern in patterns:
        assert [p for p in told(dist.new, keys) if re.fullmatch(pattern, p)], pattern


def test_the_page_is_made_with_what_a_jump_host_has(dist: Dist, keys: Keys, tmp_path: Path) -> None:
    """The page needs Ansible's own dependencies, nothing that only a builder has."""
    block = "import sys\nfor name in ('cyclonedx', 'debian', 'packageurl', 'zstandard', 'yaml'):\n"
    block += "    sys.modules[name] = None\nfrom bundle.cli.main import main\nsys.exit(main())\n"
    out = tmp_path / "page.html"
    command = [sys.executable, "-c", block, "dossier", str(dist.new), "-o", str(out)]
    subprocess.run([*command, *trusted(keys)], cwd=TREE, check=True, capture_output=True)
    assert "Signature verified when this page was made" in out.read_text()


def test_what_a_delta_leaves_out_is_said_where_it_is(dist: Dist, keys: Keys) -> None:
    done = cat(dist.delta, "about/licences/redis.txt", keys)
    assert done.returncode == 2
    assert b"this delta does not carry about/licences/redis.txt: release 1.0.0" in done.stderr


@pytest.fixture(scope="module")
def imported(dist: Dist, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a jump host on which release 1.1.0 was imported as a delta."""
    home = Home(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(venv, "make", lambda *_: None)
        run_import(dist.old, keys.trust(), home)
        run_import(dist.delta, keys.trust(), home)
    return home.releases / "1.1.0"


def test_an_imported_release_is_inspected_as_its_bundle_is(
    dist: Dist, imported: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for path in (dist.delta, imported):
        home = ["--home", str(imported.parent.parent)]
        assert main(["inspect", str(path), "--json", *home, *trusted(keys)]) == 0
        found.append(json.loads(capsys.readouterr().out))
    for one in found:
        assert one.pop("bundle_bytes") == one.pop("bundle_size")
    assert found[1] == found[0]
    assert found[1]["trusted"] is True


def test_the_page_of_an_imported_release_has_what_its_delta_left_out(
    dist: Dist, imported: Path, keys: Keys, tmp_path: Path
) -> None:
    texts = []
    for number, path in enumerate((dist.new, imported)):
        out = tmp_path / f"{number}.html"
        home = ["--home", str(imported.parent.parent)]
        assert main(["dossier", str(path), "-o", str(out), *home, *trusted(keys)]) == 0
        texts.append(re.findall(r"CVE-\d+-\d+|nginx 1\S+|sha256:\w+", out.read_text()))
    assert texts[0]
    assert texts[1] == texts[0]


def test_an_imported_release_that_was_altered_makes_no_page(
    imported: Path, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "1.1.0"
    shutil.copytree(imported, folder)
    path = folder / "about/vulnerabilities.json"
    path.write_bytes(path.read_bytes() + b" ")
    home = ["--home", str(imported.parent.parent), *trusted(keys)]
    for words in (
        ["dossier", str(folder), "-o", str(tmp_path / "page.html")],
        ["inspect", str(folder), "--cat", "about/vulnerabilities.json"],
    ):
        assert main([*words, *home]) == Kind.RELEASE_ALTERED.exit_code
        assert "was altered" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
