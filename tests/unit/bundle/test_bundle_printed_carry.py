"""Run the printed commands about carrying: parts, custody, signatures, lists."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.carry import split
from bundle.cli.main import make_parser
from bundle.format import manifest
from bundle.trust import custody, sshkeygen, sshsig
from tests.unit.bundle.bundlekit import TREE, Recipe, run_import
from tests.unit.bundle.printed import Typed, runs

Craft = Callable[[Recipe], Path]


def option(fix: str, name: str) -> list[str]:
    """Return an option and its value as a fix prints them."""
    return shlex.split(re.search(rf"{name}[ =]\S+", fix)[0])  # type: ignore[index]


def before(text: str, end: str) -> str:
    """Return the command at the beginning of a text."""
    found, _, rest = text.partition(end)
    assert rest or text.endswith(end)
    return found


# ------------------------------------------------------------------ parts
@runs("use --size {}k or more", "use --size 3900M")
def test_the_size_of_parts(typed: Typed, big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "split", big, "-o", typed.desk / "usb", "--size"
    fix = typed.fails(*command, "1k")
    typed.works(*command[:-1], *option(fix, "--size"))
    monkeypatch.setattr(split, "MAX_PARTS", 5)
    command = "split", big, "-o", typed.desk / "other", "--size"
    fix = typed.fails(*command, "400k")
    typed.works(*command[:-1], *option(fix, "--size"))
    assert len(list((typed.desk / "other").glob("*.part-??"))) <= 5
    monkeypatch.setattr(split, "filesystem", lambda _: "vfat")
    command = "split", big, "-o", typed.desk / "fat", "--size"
    fix = typed.fails(*command, "5G")
    typed.works(*command[:-1], *option(fix, "--size"))


@runs(
    "use them, or: cd {} && rm {}.part-?? {}.parts*; or name another -o DIR",
    "Carry {}.* together to the jump host, where import reads the parts.",
    "/opt/airlift/current/venv/bin/python -m bundle import DRIVE/{}",
)
@pytest.mark.usefixtures("quick")
def test_parts_that_are_there_already(typed: Typed, big: Path) -> None:
    out = typed.desk / "a stick"
    answer = typed.works("split", big, "-o", out)
    fix = typed.fails("split", big, "-o", out)
    typed.works("split", big, "-o", typed.desk / "other")
    typed.shell(before(fix.partition("or: ")[2], ";"))
    assert list(out.iterdir()) == []
    typed.works("split", big, "-o", out)
    words = shlex.split(answer.strip().splitlines()[-1])
    assert words[:4] == ["/opt/airlift/current/venv/bin/python", "-m", "bundle", "import"]
    typed.works(*words[3:-1], words[-1].replace("DRIVE", str(out)), *typed.trusting)


@runs(
    "cp {} {}  (FROM: where the parts were made), then run this command again; "
    "the other parts can stay",
    "cp FROM/{} {}  (FROM: where the parts were made), then run this command again",
)
def test_a_bad_part_and_a_bad_index(typed: Typed, stick: Path) -> None:
    made, usb = typed.desk / "made", typed.desk / "a stick"
    shutil.copytree(stick.parent, made)
    shutil.copytree(stick.parent, usb)
    index = usb / stick.name
    parts = sorted(usb.glob("*.part-0[13]"))
    parts[0].unlink()
    parts[1].write_bytes(b"x")
    fix = typed.fails("verify", index, *typed.trusting)
    typed.shell(before(fix, "  (FROM").replace("FROM", str(made)))
    typed.works("verify", index, *typed.trusting)
    index.write_bytes(index.read_bytes()[:-5])
    fix = typed.fails("verify", index, *typed.trusting)
    typed.shell(before(fix, "  (FROM").replace("FROM", str(made)))
    typed.works("verify", index, *typed.trusting)


@runs(
    "name the index airlift-VERSION-amd64.tar.parts, or the parts",
    "move it away, or name another -o DIR",
    "Its members are not checked against its manifest yet: verify or import does that.",
    "The signers of the bundle are not checked yet: verify or import does that.",
)
def test_a_bundle_that_lies_in_parts(typed: Typed, stick: Path) -> None:
    whole = stick.with_suffix("")
    fix = typed.fails("verify", whole, *typed.trusting)
    typed.works("verify", fix.split()[1], *typed.trusting)
    other = typed.desk / "other.tar"
    other.write_bytes(b"x")
    typed.fails("join", other, "-o", typed.desk)
    out = typed.desk / "joined"
    out.mkdir()
    (out / whole.name).write_bytes(b"x")
    typed.fails("join", stick, "-o", out)
    typed.works("join", stick, "-o", typed.desk / "elsewhere", *typed.at_home)
    typed.works("join", stick, "-o", typed.desk / "trusted", *typed.trusting)
    typed.works("verify", typed.desk / "elsewhere" / whole.name, *typed.trusting)


# ------------------------------------------------------------------ custody
@runs(
    "add --who NAME",
    "name the bundle file or its parts, or omit --who",
    "mkdir -p {}, or name another file: --custody FILE",
    "name a file: --custody {}",
    "name your own key: --sign ~/.ssh/id_ed25519; or omit --sign",
)
def test_options_of_a_custody_log(typed: Typed, small: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copy(small, typed.desk / small.name))
    verify = "verify", bundle, *typed.trusting
    typed.fails(*verify, "--note", "x")
    typed.works(*verify, "--note", "x", "--who", "NAME")
    typed.fails("verify", typed.desk, *typed.trusting, "--who", "Ann")
    log = tmp_path / "a b" / "c" / "log"
    fix = typed.fails(*verify, "--who", "Ann", "--custody", log)
    typed.shell(before(fix, ", or"))
    typed.works(*verify, "--who", "Ann", "--custody", log)
    fix = typed.fails(*verify, "--who", "Ann", "--custody", log.parent)
    typed.works(*verify, "--who", "Ann", *shlex.split(fix.partition(": ")[2]))
    ssh = typed.desk / ".ssh"
    shutil.copytree(typed.keys.key("ann").parent, ssh)
    (ssh / "ann").rename(ssh / "id_ed25519")
    fix = typed.fails(*verify, "--who", "Ann", "--sign", ssh / "none")
    words = [word.replace("~", str(typed.desk)).rstrip(";") for word in option(fix, "--sign")]
    typed.works(*verify, "--who", "Ann", *words)
    typed.works(*verify, "--who", "Ann")


@runs("mount the drive writable, or name a file of this machine: --custody FILE")
def test_a_custody_log_on_a_stick_that_is_read_only(
    typed: Typed, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copy(small, typed.desk / small.name))
    mine = typed.desk / "mine"
    mine.mkdir()
    monkeypatch.setattr(os, "access", lambda path, *_: Path(path) == mine)
    typed.fails("verify", bundle, *typed.trusting, "--who", "Ann")
    typed.works("verify", bundle, *typed.trusting, "--who", "Ann", "--custody", mine / "FILE")


@runs("to add an entry for what exists now: {} {}")
@pytest.mark.usefixtures("quick")
def test_an_entry_that_could_not_be_written(
    typed: Typed, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copy(small, typed.desk / "a b.tar"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(custody, "write_atomic", full)
        fix = typed.fails("import", bundle, *typed.trusting, "--who", "Ann Ångström")
    typed.shell(fix.partition("now: ")[2])
    entries = custody.parse(bundle.with_name("a b.tar.custody").read_bytes()).entries
    assert [one.data["who"] for one in entries] == ["Ann Ångström"]


@runs(
    "compare it with the copy of the person who had the bundle before; keep this one unchanged, "
    "and start another with --custody FILE if the bundle is carried on"
)
def test_a_custody_log_that_is_not_sound(typed: Typed, small: Path) -> None:
    bundle = Path(shutil.copy(small, typed.desk / small.name))
    bundle.with_name(f"{bundle.name}.custody").write_text("torn")
    typed.fails("verify", bundle, *typed.trusting, "--who", "Ann")
    typed.works("verify", bundle, *typed.trusting, "--who", "Ann", "--custody", typed.desk / "new")


# ------------------------------------------------------------------ contents of a bundle
@runs(
    "to write it: {}",
    "name a member such as: {}",
    "use the version of Airlift that the bundle carries, or read the members with inspect --cat",
)
def test_single_members(typed: Typed, stick: Path, small: Path, craft: Craft) -> None:
    for bundle in (small, stick):
        fix = typed.fails("inspect", bundle, "--cat", "manifest.json", *typed.trusting)
        raw = typed.shell(fix.partition("it: ")[2])
        manifest.parse(raw.encode())
    strange = craft(Recipe(files={"about/licences.json": b"x"}))
    page = "dossier", strange, "-o", typed.desk / "page.html"
    assert "inspect --cat" in typed.fails(*page, *typed.trusting)
    cat = "inspect", small, "--cat", "oci/index.json", *typed.trusting
    fix = typed.fails("inspect", small, "--cat", "index.json", *typed.trusting)
    for member in fix.partition(": ")[2].split(", "):
        typed.works("inspect", small, "--cat", member, *typed.trusting)
    fix = typed.fails(*cat, "--json")
    assert fix == "omit one of them"
    typed.works(*cat)


@runs("extract this bundle's own verify.pyz and check it by hand, as in docs/TRUST.md")
def test_a_manifest_of_a_newer_format(typed: Typed, craft: Craft) -> None:
    def newer(raw: bytes) -> bytes:
        return raw.replace(b'"format": 1', b'"format": 2')

    bundle = craft(Recipe(edit_raw=newer))
    typed.fails("verify", bundle, *typed.trusting)
    typed.shell(f"tar -xOf {bundle} verify.pyz > verify.pyz && python3 -I verify.pyz --help")
    assert "verify.pyz" in (TREE / "docs" / "TRUST.md").read_text()


# ------------------------------------------------------------------ signers
@runs(
    "add --allowed-signers FILE (ask the vendor)",
    "name the vendor's list with --allowed-signers; get it separately from the bundle",
    'write one line per signer: NAME namespaces="airlift-bundle" ssh-ed25519 AAAA…',
    'ask the vendor for a line with namespaces="{}"',
    "check --identity, or ask the vendor who signs",
)
def test_lists_of_signers(typed: Typed, small: Path) -> None:
    keys, verify = typed.keys, ("verify", small, *typed.at_home)
    typed.fails(*verify)
    typed.works(*verify, "--allowed-signers", keys.signers())
    typed.fails(*verify, "--allowed-signers", typed.desk / "none")
    broken = typed.desk / "signers"
    broken.write_text("x\n")
    fix = typed.fails(*verify, "--allowed-signers", broken)
    line = fix.partition(": ")[2].replace("NAME", "a@b")
    kind, blob = keys.line().split()[-2:]
    broken.write_text(line.replace("ssh-ed25519 AAAA…", f"{kind} {blob}") + "\n")
    typed.works(*verify, "--allowed-signers", broken)
    other = keys.signers(keys.line(options='namespaces="x"'))
    fix = typed.fails(*verify, "--allowed-signers", other)
    meant = re.search(r'namespaces="[^"]+"', fix)
    assert meant is not None
    typed.works(*verify, "--allowed-signers", keys.signers(keys.line(options=meant[0])))
    typed.fails("verify", small, *typed.trusting, "--identity", "x@y")
    typed.works("verify", small, *typed.trusting, "--identity", "release@airlift.example")


@runs(
    "make a KRL: ssh-keygen -k -f revoked.krl old-key.pub; or write a plain list, with one whole "
    "public key per line and no certificates"
)
def test_a_list_of_revoked_keys(typed: Typed, small: Path) -> None:
    (typed.desk / "list").write_text("x\n")
    fix = typed.fails("verify", small, *typed.trusting, "--revoked", typed.desk / "list")
    shutil.copy(typed.keys.key("old").with_suffix(".pub"), typed.desk / "old-key.pub")
    typed.shell(before(fix.partition(": ")[2], ";"))
    typed.works("verify", small, *typed.trusting, "--revoked", typed.desk / "revoked.krl")
    typed.works("verify", small, *typed.trusting, "--revoked", typed.desk / "old-key.pub")


@runs("install OpenSSH 8.8 or newer (package openssh-client)")
def test_a_machine_without_openssh(
    typed: Typed, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        fix = typed.fails("verify", small, *typed.trusting)
    package = before(fix.partition("(package ")[2], ")")
    assert subprocess.run(
        ["dpkg-query", "-S", shutil.which("ssh-keygen") or ""],
        check=False,
        capture_output=True,
        text=True,
    ).stdout.startswith(package)
    assert sshkeygen.MINIMUM in fix
    typed.works("verify", small, *typed.trusting)


@runs(
    "make a key: ssh-keygen -t ed25519 -C release@airlift.example -f ~/.ssh/airlift_release; "
    "then: export AIRLIFT_SIGNING_KEY=~/.ssh/airlift_release",
    "name the .pub file that ssh-keygen made, or the private key itself",
    "for a .pub, add the key to ssh-agent: ssh-add KEY; for a private key: chmod 600 KEY",
)
@pytest.mark.usefixtures("quick")
def test_a_signing_key(
    typed: Typed, big: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (typed.desk / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(typed.desk))
    one = "split", big, "-o", typed.desk / "usb"
    fix = typed.fails(*one, "--key", typed.desk / "none")
    make, export = fix.removeprefix("make a key: ").split("; then: ")
    typed.shell(f"{make} -q -N ''", HOME=str(typed.desk))
    name, value = export.removeprefix("export ").split("=")
    monkeypatch.setenv(name, value)
    assert "index signed" in typed.works(*one)
    public = Path(value).expanduser().with_suffix(".pub")
    private = public.with_suffix("").rename(typed.desk / "moved")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    fix = typed.fails("split", big, "-o", typed.desk / "two", "--key", public)
    call = f"{sys.executable} -m bundle split {big} -o {typed.desk / 'two'} --key {public}"
    add = before(fix.partition("agent: ")[2], ";").replace("KEY", str(private))
    ended = 'trap "kill $SSH_AGENT_PID" EXIT'
    assert "index signed" in typed.shell(f'eval "$(ssh-agent)"; {ended}; {add}; {call}')
    other = typed.desk / "other.pub"
    other.write_text("x")
    receipt = "receipt", "-o", typed.desk / "receipt.json", "--key"
    run_import(small, typed.keys.trust(), typed.home)
    monkeypatch.setattr(sshsig, "sign", lambda *_, **__: b"x")
    typed.fails(*receipt, other, *typed.at_home)
    typed.works(*receipt, public, *typed.at_home)


@runs('eval "$(ssh-agent)"; ssh-add {}; then run the same command again')
def test_a_key_with_a_passphrase(typed: Typed, big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = typed.desk / "a key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", key], check=True)
    ask = typed.desk / "ask"
    ask.write_text("#!/bin/sh\necho secret\n")
    ask.chmod(0o755)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    fix = typed.fails("split", big, "-o", typed.desk / "usb", "--key", key)
    call = f"{sys.executable} -m bundle split {big} -o usb --key 'a key.pub'"
    ended = 'trap "kill $SSH_AGENT_PID" EXIT'
    start, add, _ = fix.split("; ")
    command = f"{start}; {ended}; {add}; {call}"
    asked = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    assert "index signed" in typed.shell(command, **asked)


@runs("{} --help")
def test_wrong_arguments(typed: Typed) -> None:
    fix = typed.fails("verify", "--no-such-option")
    typed.shell(fix)
    assert make_parser().prog in fix


@runs('write dates as valid-before="20271231"')
def test_a_date_that_there_is_not(typed: Typed, small: Path) -> None:
    def verify(date: str) -> list[str]:
        line = typed.keys.line(options=f'namespaces="airlift-bundle",{date}')
        return ["verify", str(small), "--allowed-signers", str(typed.keys.signers(line))]

    fix = typed.fails(*verify('valid-before="20271399"'), *typed.at_home)
    typed.works(*verify(fix.partition("as ")[2]), *typed.at_home)


@runs(
    "name the file airlift-VERSION-amd64.tar itself; if this is that file, copy the bundle again "
    "from its source, and compare it with SHA256SUMS; do not change the drive",
    "name the bundle file, as `build` named it: airlift-VERSION-amd64.tar",
)
def test_a_file_that_is_no_bundle(typed: Typed, small: Path) -> None:
    other = typed.desk / "file"
    other.write_bytes(b"x" * 1024)
    typed.fails("verify", other, *typed.trusting)
    typed.works("verify", small, *typed.trusting)
    named = Path(shutil.copy(small, typed.desk / "a b.tar"))
    typed.fails("split", named)
    typed.works("split", named.rename(typed.desk / small.name))
