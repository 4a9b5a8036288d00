"""The container engine of the building machine: find it, build, run, tag, inspect."""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from bundle.builder.problems import Problem

#: Docker's classic image config, as far as it is needed here.
Inspection = dict[str, Any]

# The start of the tag of a step's image; the time comes next.
_OWN = "own-"
_OWN_SECONDS = 86400
_PLAIN_BUILDER_LAST = 22  # the CLI of engine 23 and newer needs the buildx plugin to use BuildKit


def docker() -> list[str]:
    """Return the Docker CLI, preferably the distribution's, which fits its engine."""
    override = os.environ.get("AIRLIFT_DOCKER")
    if override:
        return override.split()
    packaged = Path("/usr/bin/docker")
    return [str(packaged) if os.access(packaged, os.X_OK) else shutil.which("docker") or "docker"]


def require() -> None:
    """Raise a `Problem` with the fix unless an engine answers."""
    try:
        done = subprocess.run(
            [*docker(), "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except FileNotFoundError:
        raise Problem(
            "no docker command on this machine, which builds images",
            fix="apt-get install docker.io docker-cli (scripts/dev-setup.sh does it)",
        ) from None
    except subprocess.TimeoutExpired:
        raise Problem(
            "the container engine does not answer within 30 s",
            fix="check it: systemctl status docker",
        ) from None
    if done.returncode != 0:
        raise Problem(
            f"the container engine does not answer: {_last_line(done.stderr)}",
            fix="start it: systemctl start docker, or without systemd: dockerd &; then check that "
            "this user is allowed to use it (group docker)",
        )


def run(arguments: Iterable[str], *, what: str, stdin: IO[bytes] | bytes | None = None) -> str:
    """Call the CLI and return its output; a failure is a `Problem` that names `what`."""
    source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    done = subprocess.run(
        [*docker(), *arguments], capture_output=True, env=_environment(), check=False, **source
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).decode(errors="replace").splitlines()[-15:])
        raise Problem(f"{what} failed:\n{tail}")
    return bytes(done.stdout).decode()


def inspect(reference: str) -> Inspection | None:
    """Return what the engine knows of an image, or None if it has no such image."""
    done = subprocess.run(
        [*docker(), "image", "inspect", reference], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return None
    found: list[Inspection] = json.loads(done.stdout)
    return found[0]


def inspect_all(references: list[str]) -> dict[str, Inspection]:
    """Return what the engine knows of all images, in one call; a `Problem` names missing ones."""
    if not references:
        return {}
    done = subprocess.run(
        [*docker(), "image", "inspect", *references], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lacking = [reference for reference in references if inspect(reference) is None]
        raise Problem(f"the engine has no image {', '.join(lacking)}")
    found: list[Inspection] = json.loads(done.stdout)
    return dict(zip(references, found, strict=True))


def image_id(reference: str) -> str | None:
    """Return the id of an image, or None."""
    found = inspect(reference)
    return None if found is None else str(found["Id"])


def tag(image: str, reference: str) -> None:
    """Give an image one more name."""
    run(["tag", image, reference], what=f"tagging {reference}")


def own_name(repository: str) -> str:
    """Return a unique reference for one step of a build; process ids repeat in containers."""
    return f"{repository}:{_OWN}{int(time.time())}-{secrets.token_hex(6)}"


def remove(reference: str) -> None:
    """Remove a name of an image; ignore that a container uses it, or that it is missing."""
    subprocess.run([*docker(), "image", "rm", reference], capture_output=True, check=False)


def import_root(tree: IO[bytes], reference: str, *, changes: Iterable[str], message: str) -> None:
    """Make an image of one layer from a root file system's tar stream."""
    options = [item for change in changes for item in ("--change", change)]
    run(
        ["import", *options, "--message", message, "-", reference],
        stdin=tree,
        what=f"importing {reference}",
    )


def build(
    context: bytes,
    reference: str,
    *,
    dockerfile: str,
    arguments: Mapping[str, str],
    network: bool = True,
) -> None:
    """Build an image from a context given as a tar file."""
    options = [
        item for key in sorted(arguments) for item in ("--build-arg", f"{key}={arguments[key]}")
    ]
    if not network:
        options += ["--network", "none"]
    run(
        ["build", "--quiet", *options, "--file", dockerfile, "--tag", reference, "-"],
        stdin=context,
        what=f"building {reference}",
    )


def try_run(image: str, command: list[str], *, user: str) -> str:
    """Run a command in an image as the product does: no network, read-only, no capabilities."""
    return run(
        [
            *("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--user", user),
            *("--entrypoint", command[0], image, *command[1:]),
        ],
        what=f"testing `{' '.join(command)}` in {image}",
    )


def package_version(image: str, package: str) -> str:
    """Return the version of a Debian package in an image."""
    query = ["dpkg-query", "--show", "--showformat", "${Version}", package]
    return try_run(image, query, user="0:0").strip()


def prune_tags(repository: str, *, keep: int, current: str) -> None:
    """Remove a repository's tags but the newest few, so that disks do not fill up."""
    listed = run(
        ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository],
        what=f"listing {repository}",
    ).split()
    old = [name for name in listed if name != current][max(keep - 1, 0) :]
    for name in old:
        remove(name)


def prune_own() -> None:
    """Remove images of interrupted builds: those older than a day."""
    pattern = f"reference=airlift-*/*:{_OWN}*"
    form = ["--format", "{{.Repository}}:{{.Tag}}"]
    names = run(["image", "ls", "--filter", pattern, *form], what="listing images").split()
    for name in names:
        made = name.rpartition(f":{_OWN}")[2].partition("-")[0]
        if made.isdigit() and int(made) < time.time() - _OWN_SECONDS:
            remove(name)


@functools.cache
def _environment() -> dict[str, str]:
    """Request BuildKit if the CLI supports it without a plugin, or has the plugin."""
    version = subprocess.run([*docker(), "--version"], capture_output=True, text=True, check=False)
    major = re.search(r"version (\d+)", version.stdout)
    plain = major is not None and int(major.group(1)) <= _PLAIN_BUILDER_LAST
    plugin = subprocess.run([*docker(), "buildx", "version"], capture_output=True, check=False)
    able = plain or plugin.returncode == 0
    return {**os.environ, "DOCKER_BUILDKIT": "1" if able else "0"}


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
