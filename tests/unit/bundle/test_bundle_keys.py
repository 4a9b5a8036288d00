"""Keys that expire, are stolen, have passphrases or meet old programs: one sentence each."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.trust import allowed_signers, sshsig
from bundle.trust.sshsig import Trust
from tests.unit.bundle.bundlekit import IDENTITY, Keys, Recipe
from tests.unit.bundle.test_bundle_signers import Craft, refused, verdict


def _krl(folder: Path, keys: Keys, name: str) -> Path:
    path = folder / f"{name}.krl"
    command = ["ssh-keygen", "-q", "-k", "-f", str(path), f"{keys.key(name)}.pub"]
    subprocess.run(command, check=True)
    return path


def test_a_plain_list_of_revoked_keys(small: Path, tmp_path: Path, keys: Keys) -> None:
    plain = tmp_path / "revoked"

    def listed(text: str) -> Trust:
        plain.write_text(text)
        return keys.trust(revoked=plain, at=1e9)

    stolen, other = (sshsig.public_key(keys.key(name)) for name in ("release", "other"))
    error = refused(small, listed(f"# stolen in May\n\n{other} laptop\n{stolen} release\n"))
    assert (error.kind, "is revoked" in error.what) == (Kind.REVOKED, True)
    assert verdict(small, listed(f"{other}\n")).signers
    assert verdict(small, listed("# nobody yet\n")).signers
    for text in ("", "\n", "garbage\n", f"{other}\nssh-ed25519\n", stolen[4:], "ssh-ed25519 AAAA"):
        assert refused(small, listed(text)).kind is Kind.SIGNERS_FILE, text


def test_ssh_keygen_agrees_with_our_reading_of_a_plain_list(tmp_path: Path, keys: Keys) -> None:
    """The file for ssh-keygen revokes the same keys, in case our own check is bypassed."""
    plain = tmp_path / "revoked"
    plain.write_text(f"# x\r\n{sshsig.public_key(keys.key())}\tcomment\r\n")
    (tmp_path / "m").write_bytes(b"x")
    (tmp_path / "s").write_bytes(sshsig.sign(b"x", keys.key()))
    (tmp_path / "r").write_bytes(allowed_signers.load_revoked(plain).for_ssh_keygen)
    command = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-n",
        sshsig.NAMESPACE,
        "-I",
        IDENTITY,
    ]
    command += ["-f", str(keys.signers()), "-s", str(tmp_path / "s")]
    with (tmp_path / "m").open() as message:
        assert subprocess.run(command, stdin=message, check=False).returncode == 0
    with (tmp_path / "m").open() as message:
        revoked = [*command, "-r", str(tmp_path / "r")]
        assert subprocess.run(revoked, stdin=message, check=False).returncode != 0


def test_a_damaged_krl_is_not_taken_for_a_bad_signature(
    small: Path, tmp_path: Path, keys: Keys
) -> None:
    cut = tmp_path / "cut.krl"
    cut.write_bytes(_krl(tmp_path, keys, "other").read_bytes()[:60])
    error = refused(small, keys.trust(revoked=cut))
    assert (error.kind, "damaged" in error.what) == (Kind.SIGNERS_FILE, True)


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ('valid-after="soon"', "not a date"),
        ('valid-after="2026-01-01"', "not a date"),
        ('valid-after="20261301"', "invalid"),
        ('valid-after="20270101",valid-before="20260101"', "before"),
        ("valid-after=20260101", "cannot be read"),
        ('namespaces="airlift-bundle",no-touch-required', "cannot be read"),
        ('verify-required="yes"', "not known"),
    ],
)
def test_options_that_ssh_keygen_would_not_take(
    options: str, phrase: str, small: Path, keys: Keys
) -> None:
    error = refused(small, keys.trust(keys.line(options=options)))
    assert (error.kind, phrase in error.what) == (Kind.SIGNERS_FILE, True), str(error)


def test_a_signer_comes_with_the_dates_of_his_key(small: Path, keys: Keys) -> None:
    line = keys.line(options='valid-before="20990101",namespaces="airlift-bundle"')
    other = keys.line("other", options='valid-after="20200101"')
    (signer,) = verdict(small, keys.trust(other, line)).signers
    assert signer.valid == "until 20990101"
    both = keys.line(options='VALID-AFTER="20200101",valid-before="20990101"')
    assert verdict(small, keys.trust(both)).signers[0].valid == "from 20200101 until 20990101"
    assert not verdict(small, keys.trust()).signers[0].valid


def test_find_principals_does_not_look_at_the_message(small: Path, keys: Keys) -> None:
    """So it is never used: it names a person for a signature over any message."""
    signature = keys.folder / "of-something-else.sig"
    signature.write_bytes(sshsig.sign(b"something else", keys.key()))
    command = ["ssh-keygen", "-Y", "find-principals", "-f", str(keys.signers())]
    done = subprocess.run(
        [*command, "-s", str(signature)], input=b"nothing of it", capture_output=True, check=True
    )
    assert done.stdout.strip() == b"release@airlift.example"
    forged = [("manifest.sig", signature.read_bytes())]
    with pytest.raises(AirliftError) as caught:
        sshsig.verify(b"nothing of it", forged, keys.trust())
    assert caught.value.kind is Kind.BAD_SIGNATURE


# Answers of the real programs of these releases.
OLD_SSH_KEYGEN = {
    "8.4, list with dates": ("{list}:1: bad options: unknown key option", "dates in the list"),
    "8.0, no signatures": ("unknown option -- Y\nusage: ssh-keygen [-q]", "cannot sign files (-Y)"),
}


@pytest.mark.parametrize("name", OLD_SSH_KEYGEN)
def test_an_ssh_keygen_that_is_too_old(
    name: str, small: Path, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, phrase = OLD_SSH_KEYGEN[name]
    program = tmp_path / "ssh-keygen"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 255\n")
    program.chmod(0o755)
    trust = keys.trust(keys.line(options='valid-before="20990101"'))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    error = refused(small, trust)
    assert (error.kind, phrase in error.what) == (Kind.PYTHON, True), str(error)
    assert "8.8" in error.fix


def test_verification_needs_no_room_for_files(
    small: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary directory may be full or read-only: ssh-keygen reads from memory."""
    monkeypatch.setenv("TMPDIR", "/proc")
    monkeypatch.setattr("tempfile.tempdir", "/proc")
    assert verdict(small, keys.trust(revoked=_krl(keys.folder, keys, "other"))).signers


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True)
    found = dict(re.findall(r"(SSH_\w+)=([^;]+);", started.stdout))
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    yield
    os.kill(int(found["SSH_AGENT_PID"]), 15)


def _locked(keys: Keys, folder: Path) -> Path:
    """Return a key with a passphrase."""
    path = folder / "locked"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def test_a_key_with_a_passphrase_and_no_agent(
    craft: Craft, tmp_path: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    key, path = _locked(keys, tmp_path), craft(Recipe())
    before = path.read_bytes()
    assert main(["sign", str(path), "--key", str(key)]) == Kind.SIGNING.exit_code
    said = capsys.readouterr().err
    assert "the key has a passphrase, and it is in no ssh-agent" in said
    assert f"ssh-add {key}" in said
    assert path.read_bytes() == before


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("suffix", [".pub", ""])
def test_the_agent_signs_for_a_key_with_a_passphrase(
    suffix: str, craft: Craft, tmp_path: Path, keys: Keys
) -> None:
    key, path = _locked(keys, tmp_path), craft(Recipe())
    # This program answers the question of ssh-add.
    (tmp_path / "ask").write_text("#!/bin/sh\necho secret\n")
    (tmp_path / "ask").chmod(0o755)
    asked = {"SSH_ASKPASS": str(tmp_path / "ask"), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", "-q", str(key)], check=True, env=os.environ | asked)
    assert main(["sign", str(path), "--key", f"{key}{suffix}"]) == 0
    line = f"second@airlift.example {sshsig.public_key(key)}\n"
    assert len(verdict(path, keys.trust(keys.line(), line, required=2)).signers) == 2


def test_the_public_half_needs_no_passphrase(tmp_path: Path, keys: Keys) -> None:
    key = _locked(keys, tmp_path)
    listed = " ".join(Path(f"{key}.pub").read_text().split()[:2])
    assert sshsig.public_key(key) == listed
    assert sshsig.public_key(Path(f"{key}.pub")) == listed
    # ssh-keygen reads this older key format for us.
    pem = tmp_path / "pem"
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-m", "PEM", "-N", "", "-f", str(pem)]
    subprocess.run(command, check=True)
    assert sshsig.public_key(pem) == " ".join(Path(f"{pem}.pub").read_text().split()[:2])
