"""Allowed signers, with real keys, ssh-keygen, agent and revocation lists."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.builder import countersign
from bundle.errors import AirliftError, Kind
from bundle.format import manifest, tar
from bundle.trust import sshsig
from bundle.trust.sshsig import Trust, Verdict
from bundle.verify import checks
from tests.unit.bundle.bundlekit import Keys, Recipe, join, records

Craft = Callable[[Recipe], Path]


def verdict(path: Path, trust: Trust) -> Verdict:
    with checks.opened(path, trust=trust, home=None) as bundle:
        assert bundle.verdict is not None
        return bundle.verdict


def refused(path: Path, trust: Trust) -> AirliftError:
    with pytest.raises(AirliftError) as caught:
        verdict(path, trust)
    assert caught.value.fix
    assert "\n" not in caught.value.what
    return caught.value


def test_a_key_that_is_not_in_the_list(small: Path, keys: Keys) -> None:
    error = refused(small, keys.trust(keys.line("stranger")))
    assert error.kind is Kind.UNKNOWN_SIGNER
    assert "SHA256:" in error.what


def test_the_right_key_of_the_wrong_person(small: Path, keys: Keys) -> None:
    trust = keys.trust(keys.line(identity="someone@else.example"), identities=("release@x",))
    error = refused(small, trust)
    assert error.kind is Kind.UNKNOWN_SIGNER
    assert "someone@else.example" in error.what
    found = verdict(small, keys.trust(identities=("nobody@x", "release@airlift.example")))
    assert found.signers[0].identity == "release@airlift.example"


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("* {key}", "pattern"),
        ("*@airlift.example {key}", "pattern"),
        ("release@airlift.example,* {key}", "pattern"),
        ("releas?@airlift.example {key}", "pattern"),
        ("!x,release@airlift.example {key}", "pattern"),
        ('"*" {key}', "pattern"),
        ('release@airlift.example cert-authority,namespaces="x" {key}', "cert-authority"),
        ("release@airlift.example", "a line is"),
        ("{key}", "a line is"),
        ("release@airlift.example ssh-ed25519 !!!", "base64"),
        ("# nobody", "lists no signer"),
        ("", "lists no signer"),
    ],
)
def test_lists_that_trust_too_many_or_nobody(
    line: str, phrase: str, small: Path, keys: Keys
) -> None:
    text = line.format(key=sshsig.public_key(keys.key())) + "\n"
    error = refused(small, keys.trust(text))
    assert (error.kind, phrase in error.what) == (Kind.SIGNERS_FILE, True), str(error)


def test_a_wildcard_line_refuses_even_beside_a_good_one(small: Path, keys: Keys) -> None:
    both = (keys.line(), keys.line("stranger", identity="*"))
    assert refused(small, keys.trust(*both)).kind is Kind.SIGNERS_FILE


def test_the_list_may_have_comments_options_and_blank_lines(small: Path, keys: Keys) -> None:
    text = (
        "# the vendor's keys\n\n",
        keys.line("other", options='namespaces="git file",valid-after="20200101"'),
        keys.line(options='valid-after="20200101",namespaces="airlift-bundle,git"'),
    )
    assert verdict(small, keys.trust(*text)).signers


def test_a_missing_list(small: Path, tmp_path: Path) -> None:
    assert refused(small, Trust(tmp_path / "none")).kind is Kind.SIGNERS_FILE


def test_a_key_that_is_listed_for_something_else(small: Path, keys: Keys) -> None:
    error = refused(small, keys.trust(keys.line(options='namespaces="git"')))
    assert error.kind is Kind.UNKNOWN_SIGNER
    assert "not for airlift-bundle" in error.what


def test_a_signature_for_another_purpose(small: Path, tmp_path: Path, keys: Keys) -> None:
    parts = records(small.read_bytes())
    raw = parts[0].data[: int(parts[0].header[124:135], 8)]
    other = sshsig.sign(raw, keys.key(), namespace="file")
    error = refused(_with_signature(small, tmp_path, other), keys.trust())
    assert error.kind is Kind.BAD_SIGNATURE
    assert "'file'" in error.what


def _with_signature(small: Path, folder: Path, signature: bytes) -> Path:
    parts = records(small.read_bytes())
    size = len(signature)
    parts[1].header = tar.header("manifest.sig", size)
    parts[1].data = signature.ljust(size + -size % 512, b"\0")
    path = folder / "changed.tar"
    path.write_bytes(join(parts))
    return path


def test_a_good_signature_over_another_manifest(
    small: Path, tmp_path: Path, craft: Craft, keys: Keys
) -> None:
    other = records(craft(Recipe(serial=9)).read_bytes())[1]
    signature = other.data[: int(other.header[124:135], 8)]
    error = refused(_with_signature(small, tmp_path, signature), keys.trust())
    assert error.kind is Kind.BAD_SIGNATURE


def test_revoked_keys(small: Path, tmp_path: Path, keys: Keys) -> None:
    def krl(name: str) -> Path:
        path = tmp_path / f"{name}.krl"
        command = ["ssh-keygen", "-q", "-k", "-f", str(path), f"{keys.key(name)}.pub"]
        subprocess.run(command, check=True)
        return path

    error = refused(small, keys.trust(revoked=krl("release")))
    assert error.kind is Kind.REVOKED
    # A revocation applies at any time, also to bundles accepted before.
    assert refused(small, keys.trust(revoked=krl("release"), at=1e9)).kind is Kind.REVOKED
    assert verdict(small, keys.trust(revoked=krl("stranger"))).signers
    assert refused(small, keys.trust(revoked=tmp_path / "none")).kind is Kind.SIGNERS_FILE
    bad = tmp_path / "bad.krl"
    bad.write_text("not a KRL")
    assert refused(small, keys.trust(revoked=bad)).kind is Kind.SIGNERS_FILE


def test_m_of_n(craft: Craft, keys: Keys) -> None:
    path = craft(Recipe(keys=("release", "second")))
    lines = keys.line(), keys.line("second", identity="security@airlift.example")
    found = verdict(path, keys.trust(*lines, required=2))
    assert [s.identity for s in found.signers] == [
        "release@airlift.example",
        "security@airlift.example",
    ]
    error = refused(path, keys.trust(*lines, required=3))
    assert (error.kind, "2 keys" in error.what) == (Kind.TOO_FEW_SIGNERS, True)


def test_one_key_under_two_names_counts_once(craft: Craft, keys: Keys) -> None:
    path = craft(Recipe(keys=("release", "release")))
    lines = keys.line(), keys.line(identity="security@airlift.example")
    assert len(verdict(path, keys.trust(*lines)).signers) == 1
    error = refused(path, keys.trust(*lines, required=2))
    assert error.kind is Kind.TOO_FEW_SIGNERS


def test_a_strangers_signature_beside_a_good_one_counts_for_nothing(
    craft: Craft, keys: Keys
) -> None:
    path = craft(Recipe(keys=("stranger", "release")))
    found = verdict(path, keys.trust())
    assert len(found.signers) == 1
    assert "not in the list" in found.ignored[0]
    assert refused(path, keys.trust(required=2)).kind is Kind.TOO_FEW_SIGNERS


def test_a_listed_signers_bad_signature_refuses_the_whole(
    craft: Craft, tmp_path: Path, keys: Keys
) -> None:
    good = craft(Recipe(keys=("second", "release")))
    other = records(craft(Recipe(serial=9, keys=("second",))).read_bytes())[1]
    forged = other.data[: int(other.header[124:135], 8)]
    lines = keys.line(), keys.line("second", identity="security@airlift.example")
    error = refused(_with_signature(good, tmp_path, forged), keys.trust(*lines))
    assert error.kind is Kind.BAD_SIGNATURE


def test_too_many_signatures(craft: Craft, keys: Keys) -> None:
    path = craft(Recipe(keys=("release",) * 9))
    assert refused(path, keys.trust()).kind is Kind.STRUCTURE


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_other_kinds_of_keys(kind: str, craft: Craft, keys: Keys) -> None:
    path = keys.folder / kind
    if not path.exists():
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)]
        subprocess.run(command, check=True)
    assert verdict(craft(Recipe(keys=(kind,))), keys.trust(keys.line(kind))).signers


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True)
    found = dict(re.findall(r"(SSH_\w+)=([^;]+);", started.stdout))
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    yield
    os.kill(int(found["SSH_AGENT_PID"]), 15)


@pytest.mark.usefixtures("agent")
def test_signing_through_the_agent(tmp_path: Path, keys: Keys) -> None:
    public = tmp_path / "only.pub"
    public.write_bytes(Path(f"{keys.key()}.pub").read_bytes())
    with pytest.raises(AirliftError) as caught:
        sshsig.sign(b"x", public)
    assert caught.value.kind is Kind.SIGNING
    assert "ssh-add" in caught.value.fix
    subprocess.run(["ssh-add", "-q", str(keys.key())], check=True)
    assert sshsig.parse(sshsig.sign(b"x", public), "x").fingerprint.startswith("SHA256:")


def test_countersigning(craft: Craft, tmp_path: Path, keys: Keys) -> None:
    path = craft(Recipe())
    lines = keys.line(), keys.line("second", identity="security@airlift.example")
    assert refused(path, keys.trust(*lines, required=2)).kind is Kind.TOO_FEW_SIGNERS
    # The second signer uses their own machine, with only OpenSSH.
    with checks.opened(path, trust=None, home=None) as bundle:
        (tmp_path / "manifest.json").write_bytes(bundle.raw_manifest)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "airlift-bundle"]
    command += ["-f", str(keys.key("second")), str(tmp_path / "manifest.json")]
    subprocess.run(command, check=True)
    made = tmp_path / "manifest.json.sig"
    assert countersign.add(path, key=None, signature=made) == 2
    assert len(verdict(path, keys.trust(*lines, required=2)).signers) == 2
    with pytest.raises(AirliftError, match="has signed this bundle already"):
        countersign.add(path, key=None, signature=made)
    made.write_bytes(sshsig.sign(b"something else", keys.key("third")))
    before = path.read_bytes()
    with pytest.raises(AirliftError, match="does not fit"):
        countersign.add(path, key=None, signature=made)
    assert path.read_bytes() == before
    assert countersign.add(path, key=keys.key("third"), signature=None) == 3


def test_nobody_countersigns_a_damaged_bundle(craft: Craft, keys: Keys) -> None:
    path = craft(Recipe())
    raw = bytearray(path.read_bytes())
    raw[-1100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(AirliftError):
        countersign.add(path, key=keys.key("second"), signature=None)
    assert path.read_bytes() == raw


def test_armour_is_what_ssh_keygen_writes(keys: Keys) -> None:
    raw = sshsig.sign(b"x", keys.key())
    body = base64.b64decode("".join(raw.decode().splitlines()[1:-1]))
    assert sshsig.armour(body) == raw


def test_manifest_signature_names() -> None:
    assert (manifest.MANIFEST, manifest.SIGNATURE) == ("manifest.json", "manifest.sig")
