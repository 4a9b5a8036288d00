"""The site's authority is made once, shared by operators, and never replaced unasked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.site.playkit import Desk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("setpriv"), reason="writes files of several users"
    ),
]

ALICE, BOB, OPERATORS = 61001, 61002, 61003
#: Task files for the jump host; the others install files as root on hosts.
ON_JUMP_HOST = ("authority", "issue")


class Site(Desk):
    """A desk with the role tls, whose hosts' files are in its own folder."""

    @property
    def own(self) -> Path:
        return self.root / "site/.airlift"

    @property
    def trusted(self) -> Path:
        return self.root / "hosts/ca.pem"

    def options(self, **more: Any) -> list[str]:
        variables = {"tls_ca_passphrase": "p" * 20, "site_tls_dir": str(self.trusted.parent)}
        return ["--limit", "edge-1", "-e", json.dumps({**variables, **more})]

    def tls(self, **more: Any) -> tuple[int, str]:
        task = {"name": "Certificates", "ansible.builtin.import_role": {"name": "tls"}}
        return self.play(task, options=self.options(**more))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_lost_authority_is_not_replaced_in_silence(site: Site) -> None:
    code, said = site.tls()
    assert code == 0, said
    first = site.trusted.read_bytes()
    shutil.rmtree(site.own)

    code, said = site.tls()
    assert code != 0
    for words in ("it trusts the authority SHA-256", "has none", "bundle state restore FILE"):
        assert words in " ".join(said.split())
    assert not (site.own / "tls/ca.key").exists()
    assert site.trusted.read_bytes() == first

    # On request, a new one is made.
    code, said = site.tls(tls_new_authority=True)
    assert code == 0, said
    assert site.trusted.read_bytes() != first


# ---------------------------------------------------------------- two operators
@pytest.fixture
def shared() -> Iterator[Site]:
    """Provide a site whose folder a group shares, as docs/JUMP_HOST.md describes.

    It is outside pytest's folder, which each run closes for other users.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        site = Site(Path(folder))
        share(site.root / "site")
        yield site


def share(folder: Path) -> None:
    # Remove other tests' smoke key; here a run creates this folder.
    shutil.rmtree(folder / ".airlift")
    os.chown(folder, ALICE, OPERATORS)
    folder.chmod(0o2770)


def as_operator(
    site: Site, user: int, *parts: str, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run parts of the role as an operator who is not root."""
    tasks = [
        {
            "name": part,
            "ansible.builtin.include_role": {"name": "tls", "tasks_from": part},
            "run_once": True,
        }
        for part in parts
    ]
    home = site.root / f"home-{user}"
    home.mkdir(exist_ok=True)
    os.chown(home, user, user)
    play = {"name": "Play", "hosts": "all", "gather_facts": False, "tasks": tasks}
    path = site.root / "releases/1.1.0/playbooks/operator.yml"
    path.write_text(json.dumps([play]))
    # Operators may read everything, as this Python may be in root's home, but write as themselves.
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={OPERATORS}"]
    words += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    words.append(str(Path(sys.executable).with_name("ansible-playbook")))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_ROLES_PATH": str(site.roles),
        "ANSIBLE_REMOTE_TMP": str(home / "tmp"),
        "ANSIBLE_LOCAL_TEMP": str(home / "local"),
    }
    return subprocess.run(
        [*words, str(path), "-i", str(site.root / "site"), *site.options(**more)],
        env=environment,
        cwd=home,
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )


def test_operators_of_a_group_share_the_authority(shared: Site) -> None:
    done = as_operator(shared, ALICE, *ON_JUMP_HOST)
    assert done.returncode == 0, done.stdout + done.stderr
    certificate = shared.own / "tls/edge-1/host.crt"
    assert certificate.stat().st_uid == ALICE
    # Bob renews Alice's certificate with her authority.
    done = as_operator(shared, BOB, "issue", tls_renew_days=5000)
    assert done.returncode == 0, done.stdout + done.stderr
    assert certificate.stat().st_uid == BOB
    for path in [shared.own, *shared.own.rglob("*")]:
        mode, group = path.stat().st_mode & 0o7777, path.stat().st_gid
        assert group == OPERATORS, path
        expected = 0o2770 if path.is_dir() else 0o660 if path.suffix == ".key" else 0o644
        assert mode == expected, (path, oct(mode))
