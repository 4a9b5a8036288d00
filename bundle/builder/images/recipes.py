"""The `debian` source: bases by mmdebstrap, and the product's images on them by recipes.

Nothing here names a mirror: mmdebstrap and apt use the distribution's own defaults.
"""

from __future__ import annotations

import functools
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from bundle.builder import cache
from bundle.builder.images import engine
from bundle.builder.images.lockfile import ImageLock, Recipe
from bundle.builder.problems import Problem
from bundle.core.events import Log

# Tags kept per image in the local engine, so that changing branches needs no build.
_KEEP_OLD = 3
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LEFT_OUT = ("man", "info", "doc", "locale", "lintian", "bug")
_HELPERS = ("install_packages", "seal_layer")


def recipes_of(lock: ImageLock) -> Path:
    """Return the folder of recipes that belongs to a lock."""
    return lock.path.parent / "recipes"


def base_key(lock: ImageLock, suite: str) -> str:
    """Return a short name for the inputs of a base image."""
    helpers = list(_helpers(lock).values())
    return cache.key([suite, lock.as_of, _mmdebstrap(lock, Path("recipes")), helpers, _PATH])


def base(lock: ImageLock, suite: str, log: Log) -> str:
    """Return the base image of a suite (`airlift-base/SUITE:HASH`); make it if missing."""
    make_it = functools.partial(_make_base, lock, suite, log)
    return once(f"airlift-base/{suite}", base_key(lock, suite), make_it)


def _make_base(lock: ImageLock, suite: str, log: Log, reference: str) -> None:
    if not shutil.which("mmdebstrap"):
        raise Problem(
            f"mmdebstrap, which makes the {suite} base image, is not installed",
            fix="apt-get install mmdebstrap (scripts/dev-setup.sh does it)",
        )
    log(f"making base image {suite} with mmdebstrap")
    # Import under a unique name first, so that a stream cut short never becomes the base.
    staged = engine.own_name(f"airlift-base/{suite}")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in _helpers(lock).items():
            (Path(folder) / name).write_text(text)
        _import([*_mmdebstrap(lock, Path(folder)), suite, "-"], staged, lock)
    engine.tag(staged, reference)
    engine.remove(staged)


def _import(command: list[str], reference: str, lock: ImageLock) -> None:
    """Run mmdebstrap and import the tree that it writes."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(lock.epoch)}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment
        ) as process,
    ):
        failure: Problem | None = None
        tree = cast("IO[bytes]", process.stdout)
        try:
            engine.import_root(
                tree,
                reference,
                changes=[f"ENV PATH={_PATH}", "ENV LANG=C.UTF-8", 'CMD ["/bin/sh"]'],
                message=f"Debian {command[-2]}, minbase, as of {lock.as_of}",
            )
        except Problem as problem:
            failure = problem
        tree.close()  # so that mmdebstrap ends as well
        if process.wait() != 0:
            engine.remove(reference)
            errors.seek(0)
            message = errors.read().decode(errors="replace")
            tail = "\n".join(message.splitlines()[-12:])
            raise Problem(f"mmdebstrap {command[-2]} failed:\n{tail}", fix=_advice(message))
        if failure:
            raise failure


def make(lock: ImageLock, recipe: Recipe, base_image: str, log: Log) -> str:
    """Return the image of a recipe (`airlift-build/NAME:HASH`); build it if missing."""
    file = recipes_of(lock) / f"{recipe.name}.Dockerfile"
    text = file.read_bytes()
    what = cache.key([text.decode(), base_image, lock.epoch])

    def build(reference: str) -> None:
        log(f"building image {recipe.name} from Debian packages")
        engine.build(
            context_of({"Dockerfile": text}, lock.epoch),
            reference,
            dockerfile="Dockerfile",
            arguments={"BASE_IMAGE": base_image, "SOURCE_DATE_EPOCH": str(lock.epoch)},
        )

    return once(f"airlift-build/{recipe.name}", what, build)


def once(repository: str, what: str, build: Callable[[str], None]) -> str:
    """Return the image `REPOSITORY:WHAT`; if it is missing, one of several builds makes it.

    Older images of the kind are removed when no build runs that may need one.
    """
    reference = f"{repository}:{what}"
    with cache.one_at_a_time(repository.replace("/", "-"), what):
        if not engine.image_id(reference):
            build(reference)
            cache.when_unused(
                functools.partial(engine.prune_tags, repository, keep=_KEEP_OLD, current=reference)
            )
    return reference


def version_of(image: str, recipe: Recipe) -> str:
    """Return the version of a recipe's package."""
    known = (
        cache.root() / "versions" / f"{cache.key([engine.image_id(image), recipe.package])}.json"
    )
    found = cache.read_json(known)
    if not isinstance(found, str):
        found = engine.package_version(image, recipe.package)
        cache.write_json(known, found)
    return found


def context_of(files: dict[str, bytes], epoch: int) -> bytes:
    """Return a build context as a tar file whose bytes depend only on the files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(files[name]), epoch, 0o644
            archive.addfile(member, io.BytesIO(files[name]))
    return stream.getvalue()


def _helpers(lock: ImageLock) -> dict[str, str]:
    return {name: (recipes_of(lock) / name).read_text() for name in _HELPERS}


def _mmdebstrap(lock: ImageLock, recipes: Path) -> list[str]:
    """Return the command, up to the suite."""
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    hooks = [f"upload {recipes / name} /usr/local/sbin/{name}" for name in _HELPERS]
    hooks += [f'chmod 0755 "$1/usr/local/sbin/{name}"' for name in _HELPERS]
    # mmdebstrap copies these from the building machine. They are emptied, not removed, because a
    # builder that makes them as mount points would change /etc in every layer.
    hooks += [f': > "$1/etc/{name}"' for name in ("hostname", "hosts", "resolv.conf")]
    hooks.append(f'chroot "$1" env SOURCE_DATE_EPOCH={lock.epoch} seal_layer')
    return [
        *("mmdebstrap", "--quiet", "--variant=minbase"),
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        # Limited, not disabled: a very old index is still refused, and signatures are checked.
        f'--aptopt=Acquire::Min-ValidTime "{lock.index_max_age_days * 86400}"',
        *excluded,
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *(f"--customize-hook={hook}" for hook in hooks),
    ]


def _advice(errors: str) -> str:
    """Return the fix for apt's error messages; other words may be part of package names."""
    if re.search(r"^E: Release file for .* is expired ", errors, re.MULTILINE):
        return "use a newer mirror, or raise index_max_age_days in bundle/images.lock.yml"
    if re.search(
        r"(Could not (resolve|connect to)|Temporary failure resolving|Unable to connect to) ",
        errors,
    ):
        return "build where a Debian mirror can be reached"
    return "read mmdebstrap's message above; `mmdebstrap --verbose` prints more"
