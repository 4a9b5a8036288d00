"""Every pip installs exactly what the lock names, even if the index has newer releases."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.errors import AirliftError, Kind
from bundle.jumphost import venv
from tests.unit.bundle.bundlekit import SOAK
from tests.unit.scripts import lockkit
from tests.unit.scripts.lockkit import (
    LOCKED,
    NEWEST,
    PIPS,
    ROOT,
    Index,
    environment,
    installed,
    pip_wheel,
)

pytestmark = pytest.mark.slow

INSTALL = ROOT / "scripts" / "locked-install.sh"
AS_LOCKED = dict.fromkeys(LOCKED, "1.0")
UNFIT = "requires probe-plain, which is not installed"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    index = Index(tmp_path_factory.mktemp("index"))
    with index.served():
        yield index


@pytest.fixture
def lock(index: Index, tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text(index.lock())
    return path


def run(*command: str | Path, cwd: Path = ROOT, **settings: str) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


# ------------------------------------------------------------------ a developer's machine
@pytest.mark.parametrize("pip", PIPS)
def test_newer_releases_change_nothing(pip: str, index: Index, lock: Path, tmp_path: Path) -> None:
    python = lockkit.venv(tmp_path / "venv", pip)
    code, said = run(INSTALL, python, lock, PIP_INDEX_URL=index.url)
    assert (code, installed(python)) == (0, AS_LOCKED), said


def test_left_to_resolve_a_pip_refuses_the_same_lock(
    index: Index, lock: Path, tmp_path: Path
) -> None:
    """Control: without `--no-deps`, newer releases in the index make the install fail."""
    script = tmp_path / "resolving.sh"
    script.write_text(INSTALL.read_text().replace("--no-deps ", ""))
    script.chmod(0o755)
    refused = {}
    for pip in PIPS:
        python = lockkit.venv(tmp_path / pip, pip)
        code, said = run(script, python, lock, PIP_INDEX_URL=index.url)
        if code != 0:
            refused[pip] = said
    assert refused
    assert all(re.search("hash", said, re.IGNORECASE) for said in refused.values()), refused


@pytest.mark.parametrize("pip", PIPS)
def test_a_lock_that_does_not_fit_together_is_refused(
    pip: str, index: Index, lock: Path, tmp_path: Path
) -> None:
    lock.write_text(index.lock("probe-plain"))
    python = lockkit.venv(tmp_path / "venv", pip)
    code, said = run(INSTALL, python, lock, PIP_INDEX_URL=index.url)
    assert code == 3
    assert UNFIT in said
    assert f"{lock} does not fit together" in said


@pytest.mark.parametrize("pip", PIPS)
def test_settings_of_pip_lead_to_the_index_and_no_further(
    pip: str, index: Index, lock: Path, tmp_path: Path
) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("probe-tool<1\nprobe-cover>=2\n")
    settings = tmp_path / "pip.conf"
    settings.write_text(
        f"[global]\nindex-url = {index.url}\nconstraint = {constraints}\nuser = true\n"
    )
    python = lockkit.venv(tmp_path / "venv", pip)
    code, said = run(INSTALL, python, lock, PIP_CONFIG_FILE=str(settings))
    assert (code, installed(python)) == (0, AS_LOCKED), said


@pytest.mark.parametrize("pip", PIPS)
def test_another_file_of_the_same_release_is_refused(
    pip: str, index: Index, lock: Path, tmp_path: Path
) -> None:
    lock.write_text(
        re.sub(r"(probe-plain==1\.0 --hash=sha256:)\w+", rf"\g<1>{'0' * 64}", lock.read_text())
    )
    python = lockkit.venv(tmp_path / "venv", pip)
    code, said = run(INSTALL, python, lock, PIP_INDEX_URL=index.url)
    assert (code, installed(python)) == (1, {}), said


@pytest.fixture
def tree(index: Index, tmp_path: Path) -> Path:
    """Return a copy of the set-up's scripts, with a lock of the test."""
    tree = tmp_path / "tree"
    for name in ("dev-setup.sh", "locked-install.sh"):
        (tree / "scripts").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "scripts" / name, tree / "scripts" / name)
    (tree / "requirements").mkdir()
    (tree / "requirements" / "dev.txt").write_text(index.lock())
    return tree


@pytest.mark.docker
def test_set_up_follows_its_lock(index: Index, tree: Path) -> None:
    setup, lock = tree / "scripts" / "dev-setup.sh", tree / "requirements" / "dev.txt"
    python = tree / ".venv" / "bin" / "python"

    index.add("probe-gone", "1.0", "Requires-Dist: probe-plain<2")
    lock.write_text(index.lock() + index.pin("probe-gone"))
    code, said = run(setup, PIP_INDEX_URL=index.url)
    assert (code, installed(python)) == (0, {**AS_LOCKED, "probe-gone": "1.0"}), said
    assert run(setup, PIP_INDEX_URL=index.url) == (0, "")

    # Remove a package that the new lock omits, because it conflicts.
    lock.write_text(index.lock("probe-plain") + index.pin("probe-plain", "2.0"))
    code, said = run(setup, PIP_INDEX_URL=index.url)
    assert (code, installed(python)) == (0, {**AS_LOCKED, "probe-plain": "2.0"}), said

    # A package that stays installed would also hide that the lock lacks it.
    lock.write_text(index.lock("probe-plain"))
    code, said = run(setup, PIP_INDEX_URL=index.url)
    assert code == 1
    assert UNFIT in said
    assert "setup: requirements/dev.txt does not fit together" in said
    assert "make lock" in said
    assert run(setup, "--check", PIP_INDEX_URL=index.url)[0] == 1

    lock.write_text(index.lock())
    code, said = run(setup, PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="0")
    assert code == 1
    assert "pip could not install requirements/dev.txt" in said


# ------------------------------------------------------------------ the image
def image_step(target: Path) -> str:
    """Return the Dockerfile's own command, with another folder for the environment."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found = re.search(
        r"^RUN (set -eu; \\\n.*--without-pip.*?[^\\])\n", text, re.MULTILINE | re.DOTALL
    )
    assert found
    assert "/opt/venv" in found[1]
    return found[1].replace("/opt/venv", str(target))


def build(folder: Path, index: Index, lock: str, pip: str, *, offline: bool) -> tuple[int, str]:
    """Run the command as in the image: beside `wheels/`, with a `python3` of its own."""
    context = folder / "context"
    (context / "wheels").mkdir(parents=True)
    (context / "wheels" / "requirements.txt").write_text(lock)
    settings = {"PIP_INDEX_URL": index.url}
    programs = Path(sys.executable).parent
    if offline:
        settings = {}
        for file in (*index.files.glob("*.whl"), pip_wheel(pip)):
            shutil.copy(file, context / "wheels")
    else:
        programs = lockkit.venv(folder / "base", pip).parent
    path = f"{programs}:{os.environ['PATH']}"
    return run("/bin/sh", "-c", image_step(folder / "venv"), cwd=context, PATH=path, **settings)


#: A pip version, and whether the wheels are in the folder.
BUILDS = [(PIPS[0], False), (NEWEST, True)]
if SOAK:
    BUILDS = list(itertools.product(PIPS, (True, False)))


@pytest.mark.parametrize(("pip", "offline"), BUILDS)
def test_the_image_has_what_is_locked(
    pip: str, offline: bool, index: Index, tmp_path: Path
) -> None:
    code, said = build(tmp_path, index, index.lock(), pip, offline=offline)
    python = tmp_path / "venv" / "bin" / "python"
    assert (code, installed(python)) == (0, AS_LOCKED), said
    assert not [*(tmp_path / "venv").rglob("pip*")]


def test_no_image_of_a_lock_that_does_not_fit_together(index: Index, tmp_path: Path) -> None:
    code, said = build(tmp_path, index, index.lock("probe-plain"), NEWEST, offline=True)
    assert code == 1
    assert UNFIT in said
    assert "app/requirements.txt does not fit together; renew it: make lock" in said


# ------------------------------------------------------------------ the jump host
def release(folder: Path, index: Index, lock: str) -> Path:
    """Return an unpacked release with the bundle's pip and more wheels than its lock names."""
    for name in ("wheels", "requirements", "bundle"):
        (folder / name).mkdir(parents=True)
    for file in (*index.files.glob("*.whl"), pip_wheel(NEWEST)):
        shutil.copy(file, folder / "wheels")
    (folder / venv.REQUIREMENTS).write_text(lock)
    (folder / "bundle" / "__init__.py").touch()
    return folder


def test_a_jump_host_has_what_is_locked(index: Index, tmp_path: Path) -> None:
    made = release(tmp_path / "release", index, index.lock())
    venv.make(made, "0" * 64)
    assert installed(made / "venv" / "bin" / "python") == AS_LOCKED
    assert venv.is_complete(made, "0" * 64)


def test_a_jump_host_refuses_wheels_that_do_not_fit_together(index: Index, tmp_path: Path) -> None:
    made = release(tmp_path / "release", index, index.lock("probe-plain"))
    with pytest.raises(AirliftError) as caught:
        venv.make(made, "0" * 64)
    assert caught.value.kind is Kind.BOOTSTRAP
    assert caught.value.what.startswith("the wheels of this release do not fit together: ")
    assert UNFIT in caught.value.what
    assert caught.value.fix.startswith("ask the vendor for a complete bundle")
    assert not venv.is_complete(made, "0" * 64)
