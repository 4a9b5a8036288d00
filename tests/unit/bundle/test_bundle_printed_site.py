"""Run the printed commands of a jump host: imports, releases, sites, receipts."""

from __future__ import annotations

import errno
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from bundle.core import output
from bundle.errors import AirliftError
from bundle.jumphost import importer, readers, receipt, venv
from bundle.jumphost.venv import MARKER
from bundle.trust import sshsig
from tests.unit.bundle.bundlekit import TREE, Keys, Recipe
from tests.unit.bundle.deltakit import Dist
from tests.unit.bundle.printed import Typed, runs

Craft = Callable[[Recipe], Path]
pytestmark = pytest.mark.usefixtures("quick")


def made(recipe: Recipe, folder: Path, keys: Keys, name: str = "") -> Path:
    """Return a bundle with the name that fixes give it."""
    return recipe.make(folder / (name or f"airlift-{recipe.version}-amd64.tar"), keys)


# ------------------------------------------------------------------ after an import
@runs(
    "cd {}",
    "mkdir -p {} && cp -r inventories/example {}",
    "# fill in {}: hosts.yml, group_vars/all/main.yml, vault.yml",
    "./venv/bin/ansible-playbook -i {} --vault-id {}",
    "./venv/bin/ansible-playbook -i {} --vault-id {} playbooks/{}",
    "--vault-id {}",
    "upgrade.yml --check",
)
@pytest.mark.slow
def test_the_next_commands_of_an_import(typed: Typed, small: Path) -> None:
    """Use this tree's playbooks, as in a real release; no host is contacted."""
    password = typed.desk / "password"
    password.write_text("x\n")
    answer = typed.works("import", small, *typed.trusting)
    tried = set[str]()
    for state in ("no site", "a site", "installed", "of no label"):
        site = typed.home.sites / "CLIENT"
        _in_tree(typed, answer, password, tried)
        assert (site / "hosts.yml").is_file(), state
        if state == "a site":
            (site / ".airlift" / "tls").mkdir(parents=True)
            (site / ".airlift" / "tls" / "ca.pem").write_text("x")
        if state == "installed":
            tool = f"{sys.prefix}/bin/ansible-vault"
            vault = site / "group_vars" / "all" / "vault.yml"
            vault.write_text("x: y\n")
            typed.shell(f"{tool} encrypt --vault-password-file {password} {vault}")
        answer = typed.works("import", small, *typed.trusting)


def _in_tree(typed: Typed, answer: str, password: Path, tried: set[str]) -> None:
    """Run a printed command; a playbook's command only once."""
    for line in answer.partition("Next:\n")[2].splitlines():
        words = shlex.split(line.strip(), comments=True)
        if words[:1] == ["cd"]:
            assert Path(words[1]).is_dir()
            assert (Path(words[1]) / "venv" / "bin").is_dir()
        elif words[:1] == ["mkdir"]:
            typed.shell(f"cd {TREE} && {line}")
            example = TREE / "inventories" / "example" / "group_vars" / "all"
            assert {"main.yml", "vault.yml.example"} <= {path.name for path in example.iterdir()}
        elif words:
            assert words[0] == "./venv/bin/ansible-playbook"
            words[0] = f"{sys.prefix}/bin/ansible-playbook"
            place = words.index("--vault-id") + 1
            words[place] = words[place].replace("@prompt", f"@{password}")
            command = shlex.join(words)
            if command not in tried:
                typed.shell(f"cd {TREE} && {command} --syntax-check")
            tried.add(command)


@runs(
    "is complete again; {} stays current; to go back, run rollback.yml",
    "airlift {}, serial {}, is complete again; {} stays current; to go back, run rollback.yml",
)
def test_a_release_that_was_repaired(typed: Typed, craft: Craft) -> None:
    first = craft(Recipe())
    for path in (first, craft(Recipe("1.1.0", 2)), first):
        typed.works("import", path, *typed.trusting)
    assert (TREE / "playbooks" / "rollback.yml").is_file()


# ------------------------------------------------------------------ refused imports
def _trusts_by_two_names(keys: Keys) -> tuple[str, str]:
    return keys.line(), keys.line("second", identity="security@airlift.example")


@runs(
    "ask the vendor for the current list; if the vendor confirms this key through a separate "
    "channel, add: --restore-signer {}"
)
def test_a_key_that_comes_back(typed: Typed, craft: Craft) -> None:
    bundle, both = craft(Recipe()), _trusts_by_two_names(typed.keys)
    for lines in (both, both[:1]):
        typed.works(
            "import", bundle, "--allowed-signers", typed.keys.signers(*lines), *typed.at_home
        )
    again = "import", bundle, "--allowed-signers", typed.keys.signers(*both), *typed.at_home
    fix = typed.fails(*again)
    typed.works(*again, *shlex.split(fix.partition("add: ")[2]))


@runs(
    "mount one file system at {}, or use --home",
    "free {} there, or use --home on a larger disk",
)
def test_disks_that_do_not_fit(
    typed: Typed, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed.home.create()
    other = Path("/dev/shm", tmp_path.name, str(tmp_path.stat().st_ino))  # noqa: S108 - another file system
    other.mkdir(parents=True)
    typed.home.blobs.rmdir()
    typed.home.blobs.symlink_to(other)
    typed.fails("import", small, *typed.trusting)
    shutil.rmtree(other.parent)
    signers = typed.trusting[:2]
    typed.works("import", small, *signers, "--home", tmp_path / "second")
    with monkeypatch.context() as patch:
        patch.setattr(importer, "free_bytes", lambda path: (path != tmp_path / "third") << 40)
        typed.fails("import", small, *signers, "--home", tmp_path / "third")
        typed.works("import", small, *signers, "--home", tmp_path / "fourth")


@runs('sudo install -d -o "$USER" {}')
def test_a_home_of_somebody_else(
    typed: Typed, small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "not-mine" / "airlift"
    command = "import", small, *typed.trusting[:2], "--home", home

    def denied(*_: Any, **__: Any) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", denied)
        fix = typed.fails(*command)
    tools = typed.desk / "bin"
    tools.mkdir()
    (tools / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tools / "sudo").chmod(0o755)
    typed.shell(fix, USER="root")
    assert home.is_dir()
    typed.works(*command)


@runs("free some space there (df -h, df -i), then {}")
def test_a_disk_that_is_full(typed: Typed, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(importer, "sync_filesystem", full)
        fix = typed.fails("import", small, *typed.trusting)
    for command in re.findall(r"df -\w", fix):
        typed.shell(f"{command} {typed.home.root}")
    typed.works("import", small, *typed.trusting)


@runs("wait until the playbook ends, or stop `bundle serve`, and run this command again")
def test_a_store_that_is_read(typed: Typed, craft: Craft) -> None:
    for path in (craft(Recipe()), craft(Recipe("1.1.0", 2))):
        typed.works("import", path, *typed.trusting)
    with readers.reading(typed.home.store):
        typed.fails("prune", *typed.at_home, "--apply")
    typed.works("prune", *typed.at_home, "--apply")


@runs(
    "run the same command with one of these, such as python3.{}",
    "install the distribution's whole python3 (python3-minimal is not enough)",
)
def test_a_python_that_the_wheels_do_not_fit(
    typed: Typed, craft: Craft, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = f"3{sys.version_info.minor}"
    bundle = craft(Recipe(files={f"wheels/x-1-cp{here}-cp{here}-any.whl": b"x"}))
    command = "import", bundle, *typed.trusting

    class Other:
        version_info = type("Version", (), {"major": 3, "minor": 99})
        executable = sys.executable

    with monkeypatch.context() as patch:
        patch.setattr(venv, "sys", Other)
        fix = typed.fails(*command)
        patch.undo()
        patch.setitem(sys.modules, "venv", None)
        typed.fails(*command)
    assert fix.endswith(f"such as python3.{sys.version_info.minor}")
    typed.works(*command)


# ------------------------------------------------------------------ deltas
_AGAIN = "with the same options: {} && this command again; or instead: "
_INSTEAD = "instead of this delta, with the same options: "
_TOOLS = "python3 -I verify.pyz", "{} -m bundle"
NEEDS_BASE = [
    f"{start}{tool} import {{}}, which carries everything"
    for start in (_AGAIN, _INSTEAD)
    for tool in _TOOLS
]


@runs(*NEEDS_BASE)
@pytest.mark.parametrize("template", NEEDS_BASE)
def test_a_delta_without_its_base(
    typed: Typed, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer release was accepted, so the base can no longer be imported."""
    monkeypatch.chdir(typed.desk)
    files = {"wheels/a.whl": b"x"}
    base, newer = Recipe("1.3.0", 4, files=files), Recipe("1.4.0", 5, app_layer=b"x" * 999)
    first = Recipe("1.2.0", 3, app_layer=b"y" * 999)
    here = [base, newer] if template.startswith(_INSTEAD) else [first]
    if template == NEEDS_BASE[0]:
        here = []
    for recipe in here:
        typed.works("import", made(recipe, typed.desk, typed.keys), *typed.trusting)
    shutil.rmtree(typed.home.release("1.3.0"), ignore_errors=True)
    if "verify.pyz" in template:
        typed.home.current.unlink(missing_ok=True)
    made(base, typed.desk, typed.keys)
    made(Recipe("1.5.0", 6, files=files), typed.desk, typed.keys)
    delta = made(Recipe("1.5.0", 6, files=files, since=base), typed.desk, typed.keys, "delta.tar")
    fix = typed.fails("import", delta, *typed.trusting)
    if template.startswith(_AGAIN):
        steps = fix.partition("options: ")[2].partition(" && this command again")[0]
        for command in steps.split(" && "):
            typed.does(command, *typed.trusting)
        typed.works("import", delta, *typed.trusting)
    full = re.split(r"instead: |options: ", fix)[-1].partition(", which")[0]
    typed.does(full, *typed.trusting)


@runs("import {}, which has everything", "import the same bundle again to restore")
def test_a_release_that_was_damaged(
    typed: Typed, dist: Dist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dist.full.parent)
    for path in (dist.base, dist.delta):
        typed.works("import", path, *typed.trusting)
    verify = "verify", typed.home.current, *typed.at_home
    (typed.home.current / "ansible.cfg").unlink()
    typed.fails(*verify)
    typed.works("import", dist.delta, *typed.trusting)
    typed.works(*verify)
    sizes = {path.stat().st_size: path for path in typed.home.blobs.iterdir()}
    sizes[max(sizes)].unlink()
    fix = typed.fails(*verify)
    command = fix.partition("remove it and ")[2].partition(", which")[0]
    typed.works(*shlex.split(command), *typed.trusting)
    typed.works(*verify)


@runs(
    "find out who wrote it; then: rm {}",
    "find out who changed it; import the same bundle again, after this: rm -r {}",
)
def test_an_environment_that_was_changed(typed: Typed, small: Path) -> None:
    typed.works("import", small, *typed.trusting)
    release = typed.home.current.resolve()
    foreign = release / "bundle" / "__pycache__" / "a b.cpython-311.pyc"
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(b"x")
    verify = "verify", typed.home.current, *typed.at_home
    typed.shell(typed.fails(*verify).partition("then: ")[2])
    typed.works(*verify)
    (release / "venv" / "evil").write_text("x")
    typed.shell(typed.fails(*verify).partition("this: ")[2])
    typed.works("import", small, *typed.trusting)
    typed.works(*verify)
    assert (release / "venv" / MARKER).is_file()


# ------------------------------------------------------------------ prune, serve, receipts
@runs(
    "name Airlift's directory with --home",
    "finish the import of the newest bundle, or name Airlift's directory with --home",
    "import the bundle of release {} again: its import may be unfinished",
    "left by an interrupted prune or import: would go",
    "left by an interrupted prune or import: removed",
    "Dry run: nothing was removed. To remove, add --apply.",
    "name one of: {}",
)
def test_prune(typed: Typed, craft: Craft) -> None:
    typed.fails("prune", "--home", typed.desk)
    newest = craft(Recipe("1.1.0", 2))
    for path in (craft(Recipe()), newest):
        typed.works("import", path, *typed.trusting)
    (typed.home.releases / ".pruned-0.9.0").mkdir()
    typed.works("prune", *typed.at_home)
    fix = typed.fails("prune", *typed.at_home, "--keep-release", "2.0.0")
    for version in fix.partition(": ")[2].split(", "):
        typed.works("prune", *typed.at_home, "--keep-release", version)
    typed.works("prune", *typed.at_home, "--apply")
    typed.home.current.unlink()
    typed.fails("prune", *typed.at_home)
    typed.works("import", newest, *typed.trusting)
    typed.works("prune", *typed.at_home)
    (typed.home.current / "manifest.json").unlink()
    typed.fails("prune", *typed.at_home)
    typed.works("import", newest, *typed.trusting)
    typed.works("prune", *typed.at_home)


@runs(
    "import a bundle on this jump host first",
    "choose another --port, or stop what listens there (ss -ltnp)",
)
def test_serve(typed: Typed, small: Path) -> None:
    typed.fails("serve", "--store", typed.home.store)
    typed.works("import", small, *typed.trusting)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        typed.fails("serve", "--store", typed.home.store, "--port", port)
        assert f":{port}" in typed.shell("ss -ltnp") or shutil.which("ss") is None
    words = [sys.executable, "-m", "bundle", "serve", "--store", str(typed.home.store)]
    with subprocess.Popen(words, cwd=TREE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("127.0.0.1:")
        server.send_signal(signal.SIGTERM)
        server.communicate()
    assert server.returncode == 0


@runs(
    "import a bundle first, or name Airlift's directory with --home",
    "make a key of this site: ssh-keygen -t ed25519 -C jump@SITE -f ~/.ssh/airlift_receipt; "
    "then: export AIRLIFT_RECEIPT_KEY=~/.ssh/airlift_receipt",
    "The vendor needs this in --receipt-signers, sent through a separate channel:",
    "add --receipt-signers FILE; ask each site, separately from the receipt, for its line: "
    'jump@SITE namespaces="airlift-receipt" ssh-ed25519 AAAA…',
    "ask the site for a new one: python -m bundle receipt",
    "name a new file: -o FILE",
)
def test_receipts(typed: Typed, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = typed.desk / "site.json"
    take = "receipt", "-o", path, *typed.at_home
    monkeypatch.delenv("AIRLIFT_RECEIPT_KEY", raising=False)
    typed.fails(*take)
    typed.works("import", small, *typed.trusting)
    fix = typed.fails(*take)
    make, export = fix.partition("site: ")[2].split("; then: ")
    (typed.desk / ".ssh").mkdir()
    typed.shell(f"{make} -q -N ''", HOME=str(typed.desk))
    monkeypatch.setenv("HOME", str(typed.desk))
    monkeypatch.setenv(*export.removeprefix("export ").split("="))
    line = typed.works(*take).strip().splitlines()[-1].strip()
    typed.fails("receipt", "-o", small, *typed.at_home)
    with pytest.raises(AirliftError) as caught:
        receipt.read(path, None)
    typed.note(caught.value.fix)
    form = caught.value.fix.rpartition(": ")[2].split()
    assert len(form) == len(line.split())
    assert form[1:3] == line.split()[1:3]
    signers = typed.desk / "receipt-signers"
    signers.write_text(f"{line}\n")
    receipt.read(path, signers)
    # Signed, but not in the format of `receipt`.
    key = Path("~/.ssh/airlift_receipt").expanduser()
    path.write_bytes(b"{}")
    receipt.signature_of(path).write_bytes(sshsig.sign(b"{}", key, namespace=receipt.NAMESPACE))
    with pytest.raises(AirliftError) as caught:
        receipt.read(path, signers)
    typed.note(caught.value.fix)
    path.unlink()
    typed.does(caught.value.fix.partition(": ")[2], "-o", path, *typed.at_home)
    receipt.read(path, signers)


@runs("free {} there, or name a directory on a larger disk: -o DIR")
def test_a_stick_without_room(typed: Typed, big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stick = typed.desk / "stick"
    with monkeypatch.context() as patch:
        patch.setattr(output, "free_bytes", lambda path: (path != stick) << 40)
        typed.fails("split", big, "-o", stick)
        typed.works("split", big, "-o", typed.desk / "DIR")
    typed.works("split", big, "-o", stick)


# ------------------------------------------------------------------ signatures
@runs(
    "sign manifest.json of this bundle: ssh-keygen -Y sign -n airlift-bundle -f KEY",
    "SHA256SUMS beside it is outdated: `sign` with a key writes it again",
    "{} has {} signatures now; SHA256SUMS beside it is outdated: `sign` with a key writes it again",
)
def test_a_signature_that_was_made_elsewhere(
    typed: Typed, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRLIFT_SIGNING_KEY", raising=False)
    bundle = Path(shutil.copy(small, typed.desk / small.name))
    second, third = (typed.keys.key(name) for name in ("second", "third"))
    wrong = typed.desk / "wrong.sig"
    missing = typed.fails("sign", bundle, "--signature", wrong)
    wrong.write_bytes(sshsig.sign(b"other", second))
    fix = typed.fails("sign", bundle, "--signature", wrong)
    assert missing == fix
    typed.shell(f"tar -xf {bundle} manifest.json")
    command = fix.partition("bundle: ")[2].replace("KEY", str(second))
    typed.shell(f"{command} manifest.json")
    typed.works("sign", bundle, "--signature", typed.desk / "manifest.json.sig")
    typed.works("sign", bundle, "--key", third)
