"""A package index with a newer release of everything, and the pip versions under test."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bundle.builder import cache, wheels
from tests.unit.bundle.bundlekit import SOAK, wheel

ROOT = Path(__file__).resolve().parents[3]
OLD_PIPS = tuple(
    line
    for line in (ROOT / "tests" / "unit" / "scripts" / "pips.txt").read_text().splitlines()
    if line.startswith("pip==")
)
NEWEST = "newest"
# pip 23.0 comes with Debian 12's Python 3.11; it does not run on 3.12 and newer.
TOO_OLD = {"23.0"} if sys.version_info >= (3, 12) else set()
_RUN = [line.split()[0].removeprefix("pip==") for line in OLD_PIPS]
ALL_PIPS = (*(pip for pip in _RUN if pip not in TOO_OLD), NEWEST)
#: The oldest and the newest; `make soak` also runs those between.
PIPS = ALL_PIPS if SOAK else (ALL_PIPS[0], NEWEST)

_TOML = "Provides-Extra: toml"
#: Locked packages: release 1.0 of each. Each also has a 2.0 with another extra dependency.
LOCKED = {
    "probe-tool": ("Requires-Dist: probe-cover[toml]>=1", "Requires-Dist: probe-plain>=1"),
    "probe-cover": (_TOML, "Requires-Dist: probe-toml>=1; extra == 'toml'"),
    "probe-toml": (),
    "probe-plain": (),
}
NEWER = {
    "probe-tool": ("Requires-Dist: probe-cover[toml]>=2", "Requires-Dist: probe-plain>=2"),
    "probe-cover": (_TOML, "Requires-Dist: probe-parser>=2; extra == 'toml'"),
    "probe-toml": (),
    "probe-plain": (),
    "probe-parser": (),
}


def pip_wheel(version: str) -> Path:
    """Return the wheel of a pip version, downloaded once and kept in the builder's cache."""
    line = next((line for line in OLD_PIPS if line.startswith(f"pip=={version} ")), None)
    lock = line or wheels._block(ROOT / "requirements" / "controller.txt", "pip")

    def fill(folder: Path) -> None:
        said = wheels.download(lock, folder, "--only-binary=:all:")
        assert said is None, f"pip {version} could not be downloaded: {said}"

    with (cache.root() / "pips.lock").open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        folder = cache.folder("pips", cache.key(lock), fill)
    return next(folder.glob("pip-*.whl"))


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment without its settings for pip."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    return {**ours, "PIP_CONFIG_FILE": os.devnull, "LC_ALL": "C.UTF-8", **settings}


def venv(folder: Path, version: str) -> Path:
    """Return the Python of a new environment with this pip version."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next((folder / "lib").glob("python3.*/site-packages"))
    with zipfile.ZipFile(pip_wheel(version)) as archive:
        archive.extractall(packages)
    return folder / "bin" / "python"


def installed(python: Path) -> dict[str, str]:
    """Return the installed packages whose names begin with `probe`."""
    code = (
        "import importlib.metadata as m\n"
        "for d in m.distributions():\n"
        "    if d.name.startswith('probe'): print(d.name.replace('_', '-'), d.version)"
    )
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


class Index:
    """A folder of wheels that is also a package index (PEP 503)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir(parents=True)
        self.url = ""
        for packages, version in ((LOCKED, "1.0"), (NEWER, "2.0")):
            for name, about in packages.items():
                self.add(name, version, *about)

    def add(self, name: str, version: str, *about: str) -> None:
        """Add a release."""
        file, data = wheel(name.replace("-", "_"), version, {f"{name}.txt": b""}, about)
        # The folder has the name in a request, which differs from the file's name.
        (self.files / file).write_bytes(data)
        page = self.folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as out:
            digest = hashlib.sha256(data).hexdigest()
            out.write(f'<a href="../../files/{file}#sha256={digest}">{file}</a>\n')

    def pin(self, name: str, version: str = "1.0") -> str:
        """Return a line of a lock."""
        data = (self.files / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").read_bytes()
        return f"{name}=={version} --hash=sha256:{hashlib.sha256(data).hexdigest()}\n"

    def lock(self, *without: str) -> str:
        """Return the lock of the older releases."""
        return "".join(self.pin(name) for name in LOCKED if name not in without)

    @contextmanager
    def served(self) -> Iterator[None]:
        """Serve the index on a local port."""
        handler = functools.partial(_Quiet, directory=str(self.folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{server.server_port}/simple/"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Discard the message."""
