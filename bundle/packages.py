"""The operating system's packages that a host without a network needs, as a flat apt repository."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from bundle import cache, debian, engine, imagelock
from bundle.problems import Problem

Log = Callable[[str], None]

SUITE = "trixie"
#: What the roles container_engine and firewall install. A kernel with AppArmor switched on starts
#: no container without apparmor's parser.
WANTED = (
    "docker.io",
    "docker-cli",
    "nftables",
    "iptables",
    "python3-requests",
    "apparmor",
    "ca-certificates",
    "openssl",
)
_LOCK = Path(__file__).with_name("images.lock.yml")


def collect(dest: Path, *, lock: Path = _LOCK, log: Log | None = None) -> None:
    r"""Fill `dest` with `*.deb`, `Packages` and `Release`.

    A host with no way out installs from it; its own list of mirrors is left alone. `airlift.list`
    holds `deb [trusted=yes] file:/PATH ./`: the bundle's signature covers every file already.

        O="-o Dir::Etc::sourcelist=/etc/airlift/airlift.list -o Dir::Etc::sourceparts=-"
        apt-get $O -o APT::Get::List-Cleanup=0 update
        DEBIAN_FRONTEND=noninteractive apt-get $O install --yes --no-install-recommends \
            docker.io docker-cli nftables iptables python3-requests apparmor ca-certificates
    """
    images = imagelock.load(lock)
    context = {
        "Dockerfile": (debian.recipes_of(images) / "packages.Dockerfile").read_bytes(),
        "make_repository": (debian.recipes_of(images) / "make_repository").read_bytes(),
    }
    texts = {name: text.decode() for name, text in context.items()}
    identity = [texts, debian.base_key(images, SUITE), WANTED]

    def fill(folder: Path) -> None:
        engine.require()
        base = debian.base(images, SUITE, log or _quiet)
        if log:
            log(f"packages for Debian {SUITE}: downloading")
        arguments = {
            "BASE_IMAGE": base,
            "SOURCE_DATE_EPOCH": str(images.epoch),
            "PACKAGES": " ".join(WANTED),
        }
        reference = f"airlift-build/packages:{cache.key(identity)}"
        engine.build(
            debian.context_of(context, images.epoch),
            reference,
            dockerfile="Dockerfile",
            arguments=arguments,
        )
        try:
            _take_out(reference, folder)
        finally:
            engine.remove(reference)

    found = cache.folder("packages", cache.key(identity), fill)
    cache.copy_folder(found, dest)


def _take_out(image: str, folder: Path) -> None:
    command = [*engine.docker(), "run", "--rm", "--network", "none", image]
    with tempfile.TemporaryFile(dir=folder.parent) as stream:
        done = subprocess.run(
            [*command, "tar", "-C", "/packages", "-c", "."],
            stdout=stream,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode != 0:
            raise Problem(f"taking the packages out failed: {done.stderr.decode(errors='replace')}")
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    (folder / Path(member.name).name).write_bytes(content.read())
    if not (folder / "Packages").is_file():
        raise Problem("the packages image holds no index")


def _quiet(_message: str) -> None:
    """Say nothing."""
