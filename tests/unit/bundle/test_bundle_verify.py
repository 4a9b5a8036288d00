"""Every invalid bundle is refused with its exit code and one sentence."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.errors import AirliftError, Kind
from bundle.format import tar
from bundle.jumphost.store import Acceptance, Home
from bundle.trust import sshsig
from scripts.bench_bundle import VERIFY_AND_TELL_PEAK
from tests.unit.bundle.bundlekit import (
    SOAK,
    Keys,
    Recipe,
    Record,
    check,
    join,
    records,
    refused,
)


def test_a_good_bundle_is_accepted_and_says_who_signed(small: Path, keys: Keys) -> None:
    bundle = check(small, keys.trust())
    assert bundle.verdict is not None
    (signer,) = bundle.verdict.signers
    listed = subprocess.run(
        ["ssh-keygen", "-lf", f"{keys.key()}.pub"], capture_output=True, text=True, check=True
    )
    assert signer.fingerprint == listed.stdout.split()[1]
    assert signer.identity == "release@airlift.example"


def test_gnu_tar_lists_it_as_the_specification_says(small: Path) -> None:
    command = ["tar", "--numeric-owner", "--full-time", "--utc", "-tvf", str(small)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[-1] for line in lines[:3]] == [
        "manifest.json",
        "manifest.sig",
        "verify.pyz",
    ]
    assert all(line.startswith("-rw-r--r-- 0/0 ") and "1980-01-01" in line for line in lines)


Mutation = Callable[[list[Record]], bytes]


def _insert(at: int, header: Callable[[Record], Record], data: bytes = b"") -> Mutation:
    def change(parts: list[Record]) -> bytes:
        new = header(Record(tar.header("content/evil", len(data)), data))
        return join([*parts[:at], new, *parts[at:]])

    return change


def _kind(flag: bytes) -> Callable[[Record], Record]:
    return lambda record: record.changed(156, flag)


def _named(name: bytes) -> Callable[[Record], Record]:
    return lambda record: record.changed(0, name.ljust(100, b"\0"))


def _replace(index: int, change: Callable[[Record], Record]) -> Mutation:
    return lambda parts: join([*parts[:index], change(parts[index]), *parts[index + 1 :]])


def _swap(parts: list[Record]) -> bytes:
    return join([*parts[:3], parts[4], parts[3], *parts[5:]])


def _flip_data(name: str) -> Mutation:
    def change(parts: list[Record]) -> bytes:
        index = next(i for i, part in enumerate(parts) if part.name.startswith(name))
        data = bytes([parts[index].data[0] ^ 1]) + parts[index].data[1:]
        return join([*parts[:index], Record(parts[index].header, data), *parts[index + 1 :]])

    return change


def _in_gap(index: int) -> Mutation:
    def change(parts: list[Record]) -> bytes:
        size = int(parts[index].header[124:135], 8)
        assert size % 512, "this member ends on a block: it has no gap"
        data = parts[index].data[:-1] + b"x"
        parts[index] = Record(parts[index].header, data)
        return join(parts)

    return change


def _pax(text: bytes) -> Callable[[Record], Record]:
    body = f"{len(text) + 3} ".encode() + text + b"\n"
    head = Record(tar.header("PaxHeaders/x", len(body)), body.ljust(512, b"\0"))
    return lambda _: head.changed(156, b"x")


HOSTILE: dict[str, tuple[Mutation, Kind, str]] = {
    "unlisted member at the end": (_insert(99, lambda r: r), Kind.STRUCTURE, "not listed"),
    "unlisted member between": (_insert(4, lambda r: r), Kind.STRUCTURE, "not listed"),
    "unlisted member before the verifier": (_insert(2, lambda r: r), Kind.STRUCTURE, "not listed"),
    "member twice": (lambda p: join([*p, p[4]]), Kind.STRUCTURE, "twice"),
    "member twice in a row": (lambda p: join([*p[:5], p[4], *p[5:]]), Kind.STRUCTURE, "twice"),
    "manifest twice": (lambda p: join([*p[:2], p[0], *p[2:]]), Kind.STRUCTURE, "not listed"),
    "members swapped": (_swap, Kind.STRUCTURE, "not in its place"),
    "member left out": (lambda p: join([*p[:4], *p[5:]]), Kind.STRUCTURE, "not in its place"),
    "last member left out": (lambda p: join(p[:-1]), Kind.CUT_SHORT, "ends before"),
    "absolute path": (_insert(4, _named(b"/etc/cron.d/x")), Kind.STRUCTURE, "absolute"),
    "climbing path": (
        _insert(4, _named(b"content/../../x")),
        Kind.STRUCTURE,
        "leads out of its directory",
    ),
    "symbolic link": (_insert(4, _kind(b"2")), Kind.STRUCTURE, "symbolic link"),
    "member became a link": (_replace(4, _kind(b"2")), Kind.STRUCTURE, "symbolic link"),
    "hard link": (_insert(4, _kind(b"1")), Kind.STRUCTURE, "hard link"),
    "character device": (_insert(4, _kind(b"3")), Kind.STRUCTURE, "character device"),
    "block device": (_insert(4, _kind(b"4")), Kind.STRUCTURE, "block device"),
    "directory": (_insert(4, _kind(b"5")), Kind.STRUCTURE, "directory"),
    "named pipe": (_insert(4, _kind(b"6")), Kind.STRUCTURE, "named pipe"),
    "contiguous file": (_replace(4, _kind(b"7")), Kind.STRUCTURE, "unknown type"),
    "sparse file": (_replace(4, _kind(b"S")), Kind.STRUCTURE, "sparse"),
    "GNU long name": (_insert(4, _kind(b"L")), Kind.STRUCTURE, "GNU long name"),
    "pax path override": (_insert(4, _pax(b"path=content/x")), Kind.STRUCTURE, "pax header"),
    "pax size override": (_insert(4, _pax(b"size=99999999")), Kind.STRUCTURE, "pax header"),
    "pax before the manifest": (
        _insert(0, _pax(b"path=manifest.json")),
        Kind.UNREADABLE,
        "not an Airlift bundle",
    ),
    "global pax header": (_insert(4, _kind(b"g")), Kind.STRUCTURE, "pax header"),
    "GNU base-256 size": (
        _replace(4, lambda r: r.changed(124, b"\x80" + bytes(10) + b"\x01")),
        Kind.ALTERED,
        "header",
    ),
    "other size": (
        _replace(4, lambda r: r.changed(124, b"00000000777")),
        Kind.STRUCTURE,
        "in the manifest",
    ),
    "setuid mode": (_replace(4, lambda r: r.changed(100, b"0004755")), Kind.STRUCTURE, "mode"),
    "other owner": (_replace(4, lambda r: r.changed(108, b"0001750")), Kind.STRUCTURE, "owner"),
    "text hidden in a header": (_replace(4, lambda r: r.changed(500, b"hi")), Kind.STRUCTURE, ""),
    "bytes after the end": (lambda p: join(p) + b"x", Kind.STRUCTURE, "1 bytes follow"),
    "zeros after the end": (lambda p: join(p) + bytes(8192), Kind.STRUCTURE, "8192 bytes follow"),
    "a second archive after the end": (lambda p: join(p) * 2, Kind.STRUCTURE, "follow the end"),
    "text hidden in a gap": (_in_gap(3), Kind.ALTERED, "the gap before"),
    "text hidden in the last gap": (_in_gap(-1), Kind.ALTERED, "the gap after the last"),
    "text hidden after the manifest": (_in_gap(0), Kind.ALTERED, "the gap after manifest.json"),
    "no end mark": (lambda p: join(p, b""), Kind.CUT_SHORT, "end mark"),
    "half an end mark": (lambda p: join(p, bytes(512)), Kind.CUT_SHORT, "end mark"),
    "cut inside a member": (lambda p: join(p)[:-2000], Kind.CUT_SHORT, "cut short"),
    "cut inside the manifest": (lambda p: join(p)[:700], Kind.CUT_SHORT, "manifest.json"),
    "cut after the manifest": (lambda p: join(p[:1], b""), Kind.CUT_SHORT, "manifest.sig"),
    "empty file": (lambda _: b"", Kind.UNREADABLE, "not an Airlift bundle"),
    "another file": (lambda _: b"PK\x03\x04" * 1000, Kind.UNREADABLE, "not an Airlift bundle"),
    "unsigned": (lambda p: join([p[0], *p[2:]]), Kind.UNSIGNED, "not signed"),
    "altered manifest": (_flip_data("manifest.json"), Kind.BAD_SIGNATURE, "does not fit"),
    "altered signature": (_flip_data("manifest.sig"), Kind.UNSIGNED, "no signature"),
    "altered verifier": (_flip_data("verify.pyz"), Kind.ALTERED, "verify.pyz was altered"),
    "altered playbook": (_flip_data("content/playbooks"), Kind.ALTERED, "install.yml was altered"),
    "altered blob": (_flip_data("blobs/"), Kind.ALTERED, "was altered"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(
    name: str, small: Path, tmp_path: Path, keys: Keys, home: Home
) -> None:
    change, kind, phrase = HOSTILE[name]
    raw = small.read_bytes()
    path = tmp_path / "bundle.tar"
    path.write_bytes(change(records(raw)))
    assert path.read_bytes() != raw
    error = refused(path, keys.trust(), home)
    assert (error.kind, phrase in error.what) == (kind, True), str(error)
    assert not home.root.exists()


def test_taking_apart_and_joining_changes_nothing(small: Path) -> None:
    """Negative control for the table above: splitting and joining leave the bundle valid."""
    assert join(records(small.read_bytes())) == small.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flips") / "bundle.tar"


@settings(
    max_examples=5000 if SOAK else 250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.slow
def test_no_byte_can_be_changed(
    data: st.DataObject, small: Path, scratch: Path, keys: Keys
) -> None:
    raw = bytearray(small.read_bytes())
    # The verifier is most of a small bundle, so choose the other parts as often.
    parts = records(bytes(raw))
    lengths = [512 + len(part.data) for part in parts]
    index = data.draw(st.integers(0, len(parts)))
    start = sum(lengths[:index])
    end = start + (lengths[index] if index < len(parts) else 1024)
    offset = data.draw(st.integers(start, end - 1))
    raw[offset] ^= data.draw(st.integers(1, 255))
    scratch.write_bytes(raw)
    refused(scratch, keys.trust())


@settings(
    max_examples=1000 if SOAK else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_no_cut_goes_unseen(fraction: float, small: Path, scratch: Path, keys: Keys) -> None:
    raw = small.read_bytes()
    scratch.write_bytes(raw[: int(len(raw) * fraction)])
    assert refused(scratch, keys.trust()).kind in (Kind.CUT_SHORT, Kind.UNREADABLE)


def _accepted(home: Home, serial: int, version: str, digest: str, at: str) -> None:
    home.create()
    home.accept(Acceptance(serial, version, at, digest, digest, ()))


def test_serials(craft: Callable[[Recipe], Path], keys: Keys, home: Home) -> None:
    first, second = craft(Recipe()), craft(Recipe(version="1.1.0", serial=2))
    _accepted(home, 2, "1.1.0", check(second, keys.trust()).sha256, "2026-01-01T00:00:00Z")
    assert check(second, keys.trust(), home).accepted is not None
    error = refused(first, keys.trust(), home)
    assert error.kind is Kind.OLDER
    assert "serial 2 was accepted" in error.what
    assert refused(craft(Recipe("1.2.0", 2)), keys.trust(), home).kind is Kind.CONFLICT
    assert refused(craft(Recipe("1.1.0", 3)), keys.trust(), home).kind is Kind.CONFLICT
    assert check(craft(Recipe("1.2.0", 3)), keys.trust(), home).manifest.serial == 3


def test_what_was_accepted_once_still_verifies_when_it_is_older(
    craft: Callable[[Recipe], Path], keys: Keys, home: Home
) -> None:
    first = craft(Recipe())
    _accepted(home, 1, "1.0.0", check(first, keys.trust()).sha256, "2026-01-01T00:00:00Z")
    _accepted(home, 2, "1.1.0", "0" * 64, "2026-02-01T00:00:00Z")
    assert check(first, keys.trust(), home).accepted is not None


def test_a_lost_record_is_an_error_not_a_fresh_start(small: Path, keys: Keys, home: Home) -> None:
    home.create()
    (home.accepted / "1.json").write_text("")
    assert refused(small, keys.trust(), home).kind is Kind.HOME


def test_keys_end_but_not_for_what_was_accepted_before(small: Path, keys: Keys, home: Home) -> None:
    ended = keys.line(options='namespaces="airlift-bundle",valid-before="20200601"')
    error = refused(small, keys.trust(ended), home)
    assert error.kind is Kind.EXPIRED
    assert "key" in error.what
    assert "of release@airlift.example has expired: verify time 20" in error.what
    digest = check(small, keys.trust()).sha256
    _accepted(home, 1, "1.0.0", digest, "2020-01-01T00:00:00Z")
    assert check(small, keys.trust(ended), home).accepted is not None
    early = keys.line(options='namespaces="airlift-bundle",valid-after="20990101"')
    assert refused(small, keys.trust(early)).kind is Kind.EXPIRED


def test_a_failing_stick_and_a_folder(tmp_path: Path, keys: Keys) -> None:
    assert refused(tmp_path / "nothing.tar", keys.trust()).kind is Kind.UNREADABLE
    assert refused(tmp_path, keys.trust()).kind is Kind.UNREADABLE
    assert refused(Path("/dev/zero"), keys.trust()).kind is Kind.UNREADABLE


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path, keys: Keys) -> None:
    """A member of 300 MB needs far less memory, and an error at its end is detected."""
    raw = small_with_hole(tmp_path, keys)
    command = [
        sys.executable,
        "-c",
        VERIFY_AND_TELL_PEAK,
        "verify",
        str(raw),
        "--home",
        str(tmp_path / "home"),
    ]
    command += ["--allowed-signers", str(keys.signers())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 100_000, done.stdout
    with raw.open("r+b") as stream:
        stream.seek(-1024 - 1, 2)
        stream.write(b"\1")
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == Kind.ALTERED.exit_code


def small_with_hole(folder: Path, keys: Keys) -> Path:
    """Return a bundle whose last member is 300 MiB of zeros in a sparse file."""
    size = 300 << 20
    zeros = hashlib.sha256()
    for _ in range(size >> 20):
        zeros.update(bytes(1 << 20))

    def edit(data: dict[str, Any]) -> None:
        member = {"path": "packages/big.deb", "size": size, "sha256": zeros.hexdigest()}
        data["members"].append(member)

    path = Recipe(edit=edit).make(folder / "hole.tar", keys)
    with path.open("r+b") as stream:
        stream.seek(-1024, 2)
        stream.write(tar.header("packages/big.deb", size))
        stream.truncate(stream.tell() + size + 1024)
    return path


def test_one_signature_block_only(small: Path, tmp_path: Path, keys: Keys) -> None:
    """ssh-keygen would ignore a second block behind the first, so it is refused here."""
    parts = records(small.read_bytes())
    size = int(parts[1].header[124:135], 8)
    text = parts[1].data[:size]
    lines = text.decode().splitlines()
    wrapped = "\n".join([lines[0], *textwrap.wrap("".join(lines[1:-1]), 60), lines[-1], ""])
    crlf = text.replace(b"\n", b"\r\n")
    for raw in (text + text, b"hello\n" + text, crlf, text + b"\n", wrapped.encode()):
        with pytest.raises(AirliftError) as caught:
            sshsig.parse(raw, "manifest.sig")
        assert caught.value.kind is Kind.UNSIGNED
    assert sshsig.parse(text, "manifest.sig").namespace == "airlift-bundle"


def test_json_answer_of_a_refusal(small: Path, tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(small.read_bytes()[:-600])
    command = [sys.executable, "-m", "bundle", "verify", str(path), "--json"]
    command += ["--allowed-signers", str(keys.signers()), "--home", str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert answer["error"]["exit_code"] == done.returncode == Kind.CUT_SHORT.exit_code
    assert answer["error"]["kind"] == "cut-short"
    assert answer["error"]["what"] in done.stderr
