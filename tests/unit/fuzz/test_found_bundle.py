"""Regressions from fuzzing: `bundle/`, each with its smallest input."""

from __future__ import annotations

import io
import json
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bundle.builder.about import deb_apk, debian_tracker, layer_files, python_packages
from bundle.builder.about.layer_files import Files
from bundle.builder.images import upstream
from bundle.builder.images.lockfile import Upstream
from bundle.builder.problems import Problem
from bundle.errors import AirliftError, Kind
from bundle.jumphost import environment
from bundle.jumphost.registry import RegistryServer
from bundle.jumphost.store import Home
from bundle.review import diff, documents, dossier
from bundle.trust import allowed_signers
from tests.fuzz.of_builder import deb

DEEP = "[" * 100_000
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("text", ["-" * 9000 + "1", "(" * 300, "1" + "+1" * 9000, "\0"])
def test_a_program_that_python_has_no_room_for_is_not_pips(tmp_path: Path, text: str) -> None:
    (tmp_path / "tool").write_text(f"#!{tmp_path}/bin/python\n{text}\n")
    with pytest.raises(AirliftError) as caught:
        environment._check_program(tmp_path, tmp_path / "tool", "tool.main:run")
    assert caught.value.kind is Kind.RELEASE_ALTERED


@pytest.mark.filterwarnings("error")
def test_python_does_not_warn_of_a_foreign_program(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text(f"#!{tmp_path}/bin/python\nx = 1is 2\n")
    with pytest.raises(AirliftError, match="not the program that pip writes"):
        environment._check_program(tmp_path, tmp_path / "tool", "tool.main:run")


def test_a_document_that_is_nested_without_end_is_refused_in_words() -> None:
    with pytest.raises(AirliftError, match="is not JSON"):
        dossier._read(lambda _: DEEP.encode(), {})


@pytest.mark.parametrize(
    "blob", [b"\x28\xb5\x2f\xfd" + b"x" * 99, b"\x1f\x8b\x08\0" + b"\0" * 6 + b"x" * 99]
)
def test_a_layer_whose_stream_is_damaged_is_named_with_a_repair(
    tmp_path: Path, blob: bytes
) -> None:
    (tmp_path / "blob").write_bytes(blob)
    with pytest.raises(Problem, match="cannot be read") as caught:
        layer_files.read(tmp_path / "blob")
    assert caught.value.fix


def test_a_package_of_debian_that_is_damaged_says_so(tmp_path: Path) -> None:
    good = deb()
    number = good.replace(b"4         `", b"x         `", 1)
    for raw in (number, good[: good.index(b"\x1f\x8b") + 3], b"!<arch>\n" + b"x" * 60):
        (tmp_path / "libc6.deb").write_bytes(raw)
        found = deb_apk._read_deb(tmp_path / "libc6.deb", "libc6")
        assert found["licence"] is None
        assert found["stated_in"]
    (tmp_path / "libc6.deb").write_bytes(good)
    assert deb_apk._read_deb(tmp_path / "libc6.deb", "libc6")["licence"] == "MIT"


def wheel(method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("tiny-1.dist-info/METADATA", "Name: tiny\nVersion: 1\n")
    raw = out.getvalue()
    # The method is at byte 8 of a member's head, and at byte 10 of its entry at the end.
    entry = raw.index(b"PK\x01\x02")
    packed = method.to_bytes(2, "little")
    return raw[:8] + packed + raw[10 : entry + 10] + packed + raw[entry + 12 :]


@pytest.mark.parametrize("method", [1, 8, 99])
def test_a_wheel_that_is_packed_otherwise_is_named_with_a_repair(
    tmp_path: Path, method: int
) -> None:
    """Method 8 is known, but its stream is damaged here."""
    path = tmp_path / "tiny-1-py3-none-any.whl"
    path.write_bytes(wheel(method))
    with pytest.raises(Problem, match="cannot be read") as caught:
        python_packages.of_wheel(path)
    assert caught.value.fix


def test_a_date_with_a_tab_is_refused_in_words_that_can_be_printed() -> None:
    line = b'a@x namespaces="airlift-bundle",valid-before="2027\t1231" ssh-ed25519 AAAA\n'
    with pytest.raises(AirliftError, match="is not a date") as caught:
        allowed_signers.parse(Path("list"), line)
    assert caught.value.what.isprintable()


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("settings", {"settings": {"a": {"required": False}}, "renamed": {}}),
        ("settings", {"settings": {"a": {"description": "x"}}, "renamed": {}}),
        ("settings", {"settings": {"a": "x"}, "renamed": {}}),
        ("migrations", {"migrations": [{"revision": "0002"}]}),
        ("vulnerabilities", {"scanned": True, "scanner": "", "findings": [{"id": "CVE"}]}),
    ],
)
def test_a_document_of_another_form_is_not_known_in_a_diff(name: str, odd: Any) -> None:
    """Such a document may be unsigned; it used to crash the diff."""
    path = documents.DOCUMENTS[name].path
    empty: dict[str, Any] = {"settings": {}, "renamed": {}, "migrations": []}
    empty |= {"scanned": True, "scanner": "", "findings": []}
    a, b = (
        SimpleNamespace(digests={path: text}, documents={path: text.encode()})
        for text in (json.dumps(empty), json.dumps(odd))
    )
    assert "has an unknown form" in diff._about(a, b, name)["unknown"]  # type: ignore[arg-type]


def test_a_name_in_a_layer_that_is_no_text_is_told_in_words_that_can_be_printed(
    tmp_path: Path,
) -> None:
    with tarfile.open(tmp_path / "blob", "w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("usr/lib/pyt\udcff/tiny-1.dist-info/METADATA")
        archive.addfile(member)
    raw = (tmp_path / "blob").read_bytes()
    (tmp_path / "blob").write_bytes(_resized(raw, 1 << 31))
    with pytest.raises(Problem, match="more than a package database has") as caught:
        layer_files.read(tmp_path / "blob")
    assert caught.value.what.isprintable()


def _resized(raw: bytes, size: int) -> bytes:
    head = bytearray(raw[:512])
    head[124:136] = b"%011o\0" % size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + raw[512:]


def test_a_blob_that_is_nested_without_end_is_no_manifest_of_the_registry(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    home.blob("a" * 64).write_bytes(DEEP.encode())
    with RegistryServer(home.store) as server:
        url = f"http://127.0.0.1:{server.port}/v2/x/manifests/sha256:{'a' * 64}"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url, timeout=30)


@pytest.mark.parametrize("text", ["Package: \nVersion: 1\n", "Package: a\nVersion: \t\n"])
def test_a_package_without_a_name_or_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no package and version"):
        list(deb_apk.of_image(Files(texts={"var/lib/dpkg/status": text}), {}))
    with pytest.raises(ValueError, match="names no package and version"):
        list(deb_apk.of_image(Files(texts={"lib/apk/db/installed": "P:\nV:1\n"}), {}))


def test_a_package_with_an_empty_status_is_listed() -> None:
    text = "Package: a\nStatus:\nVersion: 1\n"
    (found,) = deb_apk.of_image(Files(texts={"var/lib/dpkg/status": text}), {})
    assert found[0]["name"] == "a"


@pytest.mark.parametrize(
    "raw",
    [
        DEEP,
        '{"a\\nb": {"CVE": {"releases": {"x": {"status": "odd"}}}}}',
        json.dumps(
            {
                "a": {
                    "b": {"releases": {"x": {"status": "open", "fixed_version": "1." + "9" * 5000}}}
                }
            }
        ),
    ],
)
def test_a_list_of_vulnerabilities_is_refused_in_one_line(tmp_path: Path, raw: str) -> None:
    (tmp_path / "tracker.json").write_text(raw)
    with pytest.raises(AirliftError) as caught:
        debian_tracker.load(tmp_path / "tracker.json")
    assert caught.value.what.isprintable()


@pytest.mark.parametrize(
    "answer", ["", "[]", "7", DEEP, '{"manifests": 1}', '{"manifests": [{"platform": []}]}']
)
def test_what_is_no_index_of_images_is_the_registrys_error(
    monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(upstream, "_skopeo", lambda *_: answer.encode())
    with pytest.raises(Problem) as caught:
        upstream.resolve(Upstream("registry.example/redis", "7", DIGEST))
    assert caught.value.fix
