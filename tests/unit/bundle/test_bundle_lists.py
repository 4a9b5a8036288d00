"""Damaged lists of signers and revoked keys that look complete, and invalid keys."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.jumphost import receipt
from bundle.jumphost.store import Acceptance, Home
from bundle.trust import allowed_signers, sshsig
from tests.unit.bundle.bundlekit import Keys, Recipe, arguments

BLOB = base64.b64decode("AAAAC3NzaC1lZDI1NTE5AAAAIA==") + bytes(32)


def line_of(kind: str, blob: bytes) -> str:
    return f"{kind} {base64.b64encode(blob).decode()}\n"


def test_a_plain_list_of_revoked_keys_has_whole_keys(tmp_path: Path) -> None:
    path = tmp_path / "revoked"
    path.write_text("# stolen\n\n" + line_of("ssh-ed25519", BLOB))
    assert allowed_signers.load_revoked(path).names(BLOB)
    kind = "ssh-ed25519-cert-v01@openssh.com"
    certificate = len(kind).to_bytes(4, "big") + kind.encode() + BLOB[15:]
    for text in (
        line_of("ssh-ed25519", BLOB[:-1]),
        line_of("ssh-ed25519", BLOB + b"x"),
        line_of("ssh-ed25519", BLOB[:4] + b"ssh-ed25518" + BLOB[15:]),
        line_of("ssh-rsa", BLOB),
        line_of("ssh-ed25519", b""),
        line_of(kind, certificate),
    ):
        path.write_text(text)
        with pytest.raises(AirliftError) as caught:
            allowed_signers.load_revoked(path)
        assert caught.value.kind is Kind.SIGNERS_FILE, text


@pytest.mark.parametrize("comment", [b"", b"of 2027"])
def test_a_krl_that_is_cut_revokes_nobody_unseen(
    comment: bytes, tmp_path: Path, keys: Keys
) -> None:
    path = tmp_path / "krl"
    command = ["ssh-keygen", "-q", "-k", "-f", str(path), f"{keys.key()}.pub"]
    subprocess.run(command, check=True)
    whole = path.read_bytes()
    assert allowed_signers.load_revoked(path).raw == whole
    # The comment is the last string of the header.
    header = whole[:40] + len(comment).to_bytes(4, "big") + comment
    path.write_bytes(header + whole[44:])
    allowed_signers.load_revoked(path)
    for raw in (header, header[:-1], header[:20]):
        path.write_bytes(raw)
        with pytest.raises(AirliftError, match="cut short") as caught:
            allowed_signers.load_revoked(path)
        assert caught.value.kind is Kind.SIGNERS_FILE


@pytest.mark.parametrize("code", [0, 0xFEFF, 0x0B, 0x85, 0x2028, 0x202E, 0x1B])
def test_a_list_of_signers_holds_nothing_that_cannot_be_seen(
    code: int, tmp_path: Path, keys: Keys
) -> None:
    path, hidden = tmp_path / "allowed", chr(code)
    line = keys.line()
    for text in (hidden + line, f"# a comment{hidden}\n{line}", line.rstrip() + hidden):
        path.write_bytes(text.encode())
        with pytest.raises(AirliftError) as caught:
            allowed_signers.load(path)
        assert caught.value.kind is Kind.SIGNERS_FILE
        assert f"U+{code:04X}" in caught.value.what
    path.write_bytes(f"# Zoë's\tlist\r\n{line}".encode())
    assert len(allowed_signers.load(path).keys) == 1


def test_all_dates_of_a_key_are_shown(tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "allowed"
    old, new = 'valid-before="20250101"', 'valid-after="20260101"'
    blob = base64.b64decode(sshsig.public_key(keys.key()).split()[1])

    def shown(*options: str) -> str:
        path.write_text("".join(keys.line(options=each) for each in options))
        return allowed_signers.load(path).validity("release@airlift.example", blob)

    assert shown(old, new, old) == "until 20250101 or from 20260101"
    assert shown(new) == "from 20260101"
    plain = 'namespaces="airlift-bundle"'
    assert shown(plain, plain) == ""
    assert shown(plain, old) == "without dates or until 20250101"


def test_an_index_of_parts_is_no_receipt(stick: Path, tmp_path: Path) -> None:
    assert not receipt.is_receipt(stick)
    other = tmp_path / "receipt.json"
    other.write_bytes(stick.read_bytes())
    assert receipt.is_receipt(other)


@pytest.mark.parametrize("raw", [b"\xff\xfe\0\1", b"", b"ssh-ed25519", b"-----BEGIN OPENSSH x"])
def test_a_public_key_that_is_none(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "my.pub"
    path.write_bytes(raw)
    with pytest.raises(AirliftError) as caught:
        sshsig.public_key(path)
    assert caught.value.kind is Kind.SIGNING


@pytest.mark.parametrize("member", ["manifest.json", "manifest.sig"])
def test_what_is_signed_is_no_member(
    member: str, small: Path, stick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (small, stick):
        assert main(["inspect", str(path), "--cat", member]) == Kind.USAGE.exit_code
        command = capsys.readouterr().err.split("to write it: ")[1]
        done = subprocess.run(command.split(), capture_output=True, check=True)
        assert done.stdout.startswith(b"{" if member == "manifest.json" else b"-----BEGIN")


def test_looking_judges_keys_as_of_the_acceptance(
    tmp_path: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """`verify` does the same; older bundles may be inspected, too."""
    text = "packages/debian-13/a.deb"
    path = Recipe(files={text: b"one"}).make(tmp_path / "airlift-1.0.0-amd64.tar", keys)
    ended = keys.signers(keys.line(options='valid-before="20260601"'))
    words = ["inspect", str(path), "--home", str(home.root), "--allowed-signers", str(ended)]
    assert main(words) == Kind.EXPIRED.exit_code
    assert main([*arguments("verify", path, keys, home), "--json"]) == 0
    capsys.readouterr()
    assert main([*arguments("inspect", path, keys, home), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    home.create()
    shas = found["manifest_sha256"], "0" * 64
    for serial, sha256 in enumerate(shas, found["serial"]):
        home.accept(Acceptance(serial, f"{serial}", "2026-03-01T00:00:00Z", sha256, sha256, ()))
    assert main(words) == 0
    assert main([*words, "--cat", text]) == 0
    other = Recipe(files={text: b"two"}).make(tmp_path / "other.tar", keys)
    assert main(arguments("verify", other, keys, home)) != 0
    assert main(arguments("inspect", other, keys, home)) == 0
