"""CI's candidate bundle is signed, verified and unpacked, and its key is deleted."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.bundle.bundlekit import Keys, Recipe
from tests.unit.scripts.deploykit import ROOT, program

ABOUT = {
    "about/sbom/app.cdx.json": b'{"bomFormat": "CycloneDX"}\n',
    "about/vulnerabilities.json": json.dumps(
        {"scanned": True, "reason": "", "scanner": "x", "database": "y", "findings": []}
    ).encode(),
}
#: A stand-in for the build, which takes minutes; signing, verifying and reading are real.
_PYTHON = """
import os, sys
from pathlib import Path
words = sys.argv[1:]
if words[:3] != ["-m", "bundle", "build"]:
    os.environ["PYTHONPATH"] = ROOT
    os.execv(sys.executable, [sys.executable, *words])
sys.path.insert(0, ROOT)
from tests.unit.bundle.bundlekit import Keys, Recipe
key = Path(words[words.index("--key") + 1])
Path("key-was").write_text(str(key))
Path("options").write_text(" ".join(words[words.index("--output") + 2:]))
recipe = Recipe(files=ABOUT, keys=(key.name,))
recipe.make(Path(words[words.index("--output") + 1]) / "airlift-1.0.0-amd64.tar", Keys(key.parent))
if os.environ.get("SPOIL"):
    path = Path("dist/candidate/airlift-1.0.0-amd64.tar")
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"CycloneDX")] ^= 1
    path.write_bytes(raw)
"""


class Tree:
    """A checkout with the script and a stand-in builder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scripts").mkdir()
        shutil.copy2(ROOT / "scripts" / "candidate.sh", root / "scripts")
        (root / ".venv" / "bin").mkdir(parents=True)
        head = f"#!{sys.executable}\nROOT = {str(ROOT)!r}\nABOUT = {ABOUT!r}\n"
        program(root / ".venv" / "bin" / "python", head + _PYTHON)

    def run(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Build a candidate."""
        return subprocess.run(
            [self.root / "scripts" / "candidate.sh", *words],
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.root), **settings},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def result(self) -> Path:
        return self.root / "dist" / "candidate"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_it_is_verified_and_its_documents_are_written_beside_it(tree: Tree) -> None:
    done = tree.run("--source", "debian")
    assert done.returncode == 0, done.stdout + done.stderr
    for name, text in ABOUT.items():
        assert (tree.result / name).read_bytes() == text
    assert (tree.root / "options").read_text() == "--source debian"
    assert "with 2 files about it" in done.stdout


def test_its_key_lives_as_long_as_the_script(tree: Tree) -> None:
    assert tree.run().returncode == 0
    key = Path((tree.root / "key-was").read_text())
    assert not key.parent.exists()
    assert [path.name for path in tree.result.rglob("*key*")] == []
    assert "candidate@airlift.invalid" in (tree.result / "allowed_signers").read_text()


def test_one_that_cannot_be_verified_fails_and_nothing_of_it_is_read(tree: Tree) -> None:
    done = tree.run(SPOIL="1")
    assert done.returncode == 12, done.stdout + done.stderr
    assert not (tree.result / "about").exists()


def test_a_result_of_an_earlier_run_is_removed(tree: Tree) -> None:
    assert tree.run().returncode == 0
    (tree.result / "airlift-0.9.0-amd64.tar").touch()
    assert tree.run().returncode == 0
    assert [path.name for path in tree.result.glob("*.tar")] == ["airlift-1.0.0-amd64.tar"]


def test_data_of_the_security_tracker_are_fetched_where_an_address_is_set(
    tree: Tree, tmp_path: Path
) -> None:
    data = tmp_path / "tracker.json"
    data.write_text("{}")
    assert tree.run(VULNERABILITY_DATA_URL=data.as_uri()).returncode == 0
    assert (tree.root / "options").read_text().startswith("--vulnerability-data ")
    missing = (tmp_path / "none.json").as_uri()
    assert tree.run(VULNERABILITY_DATA_URL=missing).returncode != 0


def test_a_real_signature_is_what_is_checked(tree: Tree, tmp_path: Path) -> None:
    """The candidate's list of signers must reject a bundle that another key signed."""
    assert tree.run().returncode == 0
    (tmp_path / "other").mkdir()
    other = Recipe(files=ABOUT).make(tmp_path / "other.tar", Keys(tmp_path / "other"))
    words = [sys.executable, "-m", "bundle", "verify", str(other), "--home", str(tmp_path / "home")]
    words += ["--allowed-signers", str(tree.result / "allowed_signers")]
    assert subprocess.run(words, cwd=ROOT, capture_output=True, check=False).returncode == 21
