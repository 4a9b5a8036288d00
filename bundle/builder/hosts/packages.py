"""A repository of packages for each operating system, for hosts without a network."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from bundle.builder import cache
from bundle.builder.hosts import engine_repository, systems
from bundle.builder.hosts.engine_repository import UnreachableError, WrongKeyError
from bundle.builder.hosts.systems import System
from bundle.builder.images import engine, lockfile, recipes, upstream
from bundle.builder.problems import Problem
from bundle.core.events import Log

_LOCK = Path(__file__).parents[2] / "images.lock.yml"
#: Check all systems at once, so that unreachable ones cost seconds only once.
_AT_ONCE = 4
_FAILED = "fetching them failed where this bundle was built; the build's log has the reason"


def collect(
    dest: Path, *, file: Path = systems.FILE, lock: Path = _LOCK, log: Log | None = None
) -> dict[str, dict[str, str]]:
    """Fill `dest/ID-VERSION` for each system; return omitted ones as the manifest's `absent`.

    A system is omitted, with the reason, if it is not required and its packages are unavailable. A
    failure of a required system, or a wrong key, ends the build.
    """
    wanted = systems.load(file)
    absent = {}
    with cache.in_use(), ThreadPoolExecutor(_AT_ONCE) as pool:
        pending = [pool.submit(fetch, one, dest / one.folder, lock=lock, log=log) for one in wanted]
        for system, one in zip(wanted, pending, strict=True):
            try:
                one.result()
            except WrongKeyError:
                raise
            except Problem as problem:
                if system.required:
                    raise
                known = isinstance(problem, UnreachableError)
                absent[system.absent_name] = {"reason": problem.what if known else _FAILED}
                if log:
                    log(f"note: no packages for {system.name}: {problem.what}")
    return absent


def fetch(system: System, dest: Path, *, lock: Path = _LOCK, log: Log | None = None) -> None:
    r"""Fill `dest` with a system's packages and their index, from the cache if possible.

    `*.deb`, `Packages` and `Release`, or `*.rpm`, `repodata/` and `Packages`. A host without a
    network installs from it, and keeps its own list of mirrors. With deb, `airlift.list` has
    `deb [trusted=yes] file:/PATH ./`, because the bundle's signature covers every file already.

        O="-o Dir::Etc::sourcelist=/etc/airlift/airlift.list -o Dir::Etc::sourceparts=-"
        apt-get $O -o APT::Get::List-Cleanup=0 update
        DEBIAN_FRONTEND=noninteractive apt-get $O install --yes --no-install-recommends \
            docker.io docker-cli nftables iptables python3-requests apparmor ca-certificates
    """
    images = lockfile.load(lock)
    places = recipes.recipes_of(images)
    context = {
        "Dockerfile": (places / "packages.Dockerfile").read_bytes(),
        "make_repository": (places / f"make_{system.format}_repository").read_bytes(),
    }
    base = system.base
    base_key = recipes.base_key(images, base.suite) if base.suite else [base.image, base.tag]
    texts = {name: text.decode() for name, text in context.items()}
    repository = system.repository and asdict(system.repository)
    what = cache.key([texts, base_key, images.as_of, system.packages, repository])

    def fill(folder: Path) -> None:
        # Check this first, so that no base is made for an omitted system.
        if base.registry and upstream.unreachable([base.registry]):
            message = f"{base.registry} could not be reached where this bundle was built"
            raise UnreachableError(message)
        extra = engine_repository.files(system.repository, system) if system.repository else {}
        engine.require()
        if log:
            log(f"downloading packages for {system.name}")
        start = f"{base.image}:{base.tag}"
        if base.suite:
            start = recipes.base(images, base.suite, log or _quiet)
        # A unique name, because it is removed and another cache may use the same engine.
        reference = engine.own_name("airlift-build/packages")
        engine.build(
            recipes.context_of(context | extra, images.epoch),
            reference,
            dockerfile="Dockerfile",
            arguments={
                "BASE_IMAGE": start,
                "SOURCE_DATE_EPOCH": str(images.epoch),
                "PACKAGES": " ".join(system.packages),
            },
        )
        try:
            _take_out(reference, folder)
        finally:
            engine.remove(reference)

    cache.take("packages", what, fill, dest)


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
            raise Problem(f"copying the packages failed: {done.stderr.decode(errors='replace')}")
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    path = folder / _inside(member.name)
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(content.read())
    if not (folder / "Packages").is_file():
        raise Problem("the packages image holds no index")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Problem(f"the packages image has a file outside of its folder: {name}")
    return path


def _quiet(_message: str) -> None:
    """Say nothing."""
