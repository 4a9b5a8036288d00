"""The list of host systems, and a build's reaction to unavailable packages."""

from __future__ import annotations

import http.server
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bundle.builder import cache
from bundle.builder.about import debian_tracker, inventory, vulnerabilities
from bundle.builder.hosts import engine_repository, packages, systems
from bundle.builder.hosts.engine_repository import UnreachableError, WrongKeyError
from bundle.builder.hosts.systems import System
from bundle.builder.problems import Problem
from bundle.review.diff import _package
from tests.unit.bundle.bundlekit import TREE, sha

Gpg = Callable[..., bytes]


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Gpg:
    """Return a real keyring with two keys."""
    # The agent's socket requires a short path.
    home = tmp_path_factory.mktemp("g")
    home.chmod(0o700)

    def run(*arguments: str) -> bytes:
        command = ["gpg", "--homedir", str(home), "--batch", "--quiet", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    for name in ("maker", "other"):
        run("--passphrase", "", "--quick-generate-key", f"{name} <{name}@x.example>", "ed25519")
    return run


def fingerprint(gpg: Gpg, name: str) -> str:
    rows = gpg("--with-colons", "--list-keys", name).decode().splitlines()
    return next(row.split(":")[9] for row in rows if row.startswith("fpr"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Run a local web server; yield its folder and address."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def find(folder: str) -> System:
    return next(one for one in systems.load() if one.folder == folder)


def at(system: System, url: str, key: str) -> System:
    assert system.repository
    repository = replace(system.repository, url=url, key=f"{url}/gpg", fingerprint=key)
    return replace(system, repository=repository)


def test_the_systems_that_the_product_names() -> None:
    known = systems.load()
    named = [(one.folder, one.format, one.tested, one.required) for one in known]
    assert named == [
        ("debian-13", "deb", True, True),
        ("debian-12", "deb", False, False),
        ("ubuntu-24.04", "deb", False, False),
        ("rhel-9", "rpm", False, False),
    ]
    for one in known:
        assert (TREE / "bundle" / "recipes" / f"make_{one.format}_repository").is_file()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("    tested: true", "    testet: true", "systems[0].testet: not a known key"),
        ("    tested: true", "    tested: maybe", "systems[0].tested: must be true or false"),
        ('version: "24.04"', "version: 24.04", "systems[2].version: must be a text"),
        ("format: rpm", "format: apk", "systems[3].format: apk is not known; known: deb, rpm"),
        ("{suite: trixie}", "{suit: trixie}", "systems[0].base.suit: not a known key"),
        ("support: [nftables, ", "support: [nft ables, ", "systems[0].support: 'nft ables' is not"),
        ("[keepalived]", "[keep alived]", "systems[0].shared_address: 'keep alived' is not"),
        ("9DC858229FC7DD38854AE2D88D81803C0EBFCD88", "8D81803C0EBFCD88", "repository.fingerprint:"),
        ("url: https://", "url: ftp://", "systems[1].repository.url: 'ftp://"),
        ('version: "12"', 'version: "13"', "systems[1].version: debian-13 is listed twice"),
        ("format: 1", "format: 2", "format: only 1 is known here"),
        ("systems:\n", "systems: []\nx:\n", "x: not a known key"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    text = systems.FILE.read_text()
    assert before in text
    file = tmp_path / "systems.yml"
    file.write_text(text.replace(before, after, 1))
    with pytest.raises(Problem) as caught:
        systems.load(file)
    assert str(file) in caught.value.what
    assert message in caught.value.what


def test_no_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="cannot read the list of systems"):
        systems.load(tmp_path / "systems.yml")


def test_the_makers_key_and_source_go_to_the_recipe(gpg: Gpg, site: tuple[Path, str]) -> None:
    folder, url = site
    key = gpg("--armor", "--export", "maker")
    (folder / "gpg").write_bytes(key)
    deb = at(find("debian-12"), url, fingerprint(gpg, "maker"))
    assert deb.repository
    assert engine_repository.files(deb.repository, deb) == {
        "upstream.asc": key,
        "upstream.list": f"deb [signed-by=/recipe/upstream.asc] {url} bookworm stable\n".encode(),
    }
    rpm = at(find("rhel-9"), url, fingerprint(gpg, "maker"))
    assert rpm.repository
    files = engine_repository.files(rpm.repository, rpm)
    assert f"baseurl={url}\nenabled=1\ngpgcheck=1\n".encode() in files["upstream.repo"]


@pytest.mark.parametrize("sent", ["other", "both", "binary", "page"])
def test_another_key_ends_the_build_even_of_a_system_that_may_be_absent(
    gpg: Gpg, site: tuple[Path, str], tmp_path: Path, sent: str
) -> None:
    folder, url = site
    keys = {
        "other": gpg("--armor", "--export", "other"),
        "both": gpg("--armor", "--export"),
        "binary": gpg("--export", "maker"),
        "page": b"<html>sign in to the network</html>",
    }
    (folder / "gpg").write_bytes(keys[sent])
    wanted = fingerprint(gpg, "maker")
    file = _one(tmp_path, url, wanted)
    with pytest.raises(WrongKeyError, match=f"not {wanted}") as caught:
        packages.collect(tmp_path / "out", file=file)
    assert caught.value.where == f"{url}/gpg"
    assert not (tmp_path / "out").exists()


def test_a_repository_out_of_reach_leaves_the_system_out_at_once(tmp_path: Path) -> None:
    """Nothing answers, as behind a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        file = _one(tmp_path, f"http://{host}", "0" * 40)
        said: list[str] = []
        begun = time.monotonic()
        absent = packages.collect(tmp_path / "out", file=file, log=said.append)
        assert time.monotonic() - begun < 6
    reason = f"{host} could not be reached where this bundle was built"
    assert absent == {"packages-debian-12": {"reason": reason}}
    assert said == [f"note: no packages for Debian 12: {reason}"]
    assert not (tmp_path / "out").exists()


def test_a_required_system_out_of_reach_is_an_error(tmp_path: Path) -> None:
    file = _one(tmp_path, "http://127.0.0.1:9", "0" * 40)
    file.write_text(file.read_text().replace("required: false", "required: true"))
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9 could not be reached"):
        packages.collect(tmp_path / "out", file=file)


def test_a_folder_with_folders_is_cached_and_found_damaged(tmp_path: Path) -> None:
    made: list[Path] = []

    def fill(folder: Path) -> None:
        made.append(folder)
        (folder / "repodata").mkdir()
        (folder / "repodata" / "repomd.xml").write_text("x")

    for _ in range(2):
        place = cache.folder("try", "rpm", fill)
    assert len(made) == 1
    (place / "repodata" / "repomd.xml").write_text("y")
    cache.take("try", "rpm", fill, tmp_path / "copy")
    assert len(made) == 2
    assert (tmp_path / "copy" / "repodata" / "repomd.xml").read_text() == "x"


def test_a_package_of_the_maker_is_not_taken_for_the_distributions(tmp_path: Path) -> None:
    """Debian's list of vulnerabilities does not know it, and must not be applied to it."""
    folder = tmp_path / "debian-12"
    folder.mkdir()
    index = ""
    for name, origin in (("docker-ce", "Airlift-Origin: maker.example\n"), ("nftables", "")):
        index += f"Package: {name}\nVersion: 1\nArchitecture: amd64\n{origin}"
        index += f"Filename: ./{name}_1_amd64.deb\nSHA256: {sha(name.encode())}\n\n"
    (folder / "Packages").write_text(index)
    found = inventory.of_repositories(tmp_path, systems.load())["engine/debian-12"]
    assert [package.vendor for package in found.packages] == ["debian", "maker.example"]
    tracker = debian_tracker.Tracker({}, "x", frozenset({"bookworm"}))
    report = vulnerabilities._not_covered(tracker, {"engine/debian-12": found})
    assert report == ["maker.example bookworm was not scanned: it is not in the tracker's data"]


def test_packages_of_an_rpm_system_are_listed_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "rhel-9"
    folder.mkdir()
    (folder / "Packages").write_text(
        "Package: docker-ce\nVersion: 3:27.1-1.el9\nArchitecture: x86_64\nLicense: Apache-2.0\n"
        f"Filename: ./docker-ce-27.1-1.el9.x86_64.rpm\nSHA256: {'a' * 64}\n"
    )
    found = inventory.of_repositories(tmp_path, systems.load())
    assert list(found) == ["engine/rhel-9"]
    (package,) = found["engine/rhel-9"].packages
    assert package.purl == (
        "pkg:rpm/rhel/docker-ce@3:27.1-1.el9?arch=x86_64&distro=rhel-9"
        "&file_name=docker-ce-27.1-1.el9.x86_64.rpm"
    )
    path = "packages/rhel-9/docker-ce-cli-27.1-1.el9.x86_64.rpm"
    assert _package(path) == ("rhel-9/docker-ce-cli", "27.1-1.el9")


def _one(folder: Path, url: str, key: str) -> Path:
    """Return a list of one system, which may be absent, from a repository at `url`."""
    file = folder / "systems.yml"
    file.write_text(
        f"""format: 1
systems:
  - id: debian
    version: "12"
    name: Debian 12
    tested: false
    required: false
    format: deb
    distro: bookworm
    base: {{suite: bookworm}}
    repository: {{url: "{url}", suite: bookworm, components: [stable], key: "{url}/gpg",
                 fingerprint: "{key}"}}
    engine: [docker-ce]
    support: [nftables]
"""
    )
    return file
