"""The container engine of the machine that builds: find it, build, run, tag, look."""

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

#: Docker's classic image config; enough of it for what is needed here.
Inspection = dict[str, Any]

# How the tag of a step's image begins; the time comes next.
_OWN = "own-"
_OWN_SECONDS = 86400
_PLAIN_BUILDER_LAST = 22  # the CLI of engine 23 and newer needs the buildx plugin to use BuildKit


def docker() -> list[str]:
    """Return the Docker CLI to call; the distribution's, which fits its engine, comes first."""
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
            "no docker command on this machine; images are built with it",
            fix="apt-get install docker.io docker-cli (scripts/dev-setup.sh does it)",
        ) from None
    except subprocess.TimeoutExpired:
        raise Problem(
            "the container engine does not answer within 30 s",
            fix="look at it: systemctl status docker",
        ) from None
    if done.returncode != 0:
        raise Problem(
            f"the container engine does not answer: {_last_line(done.stderr)}",
            fix="start it: systemctl start docker, or dockerd & where there is no systemd; "
            "then check that this user may talk to it (group docker)",
        )


def run(arguments: Iterable[str], *, what: str, stdin: IO[bytes] | bytes | None = None) -> str:
    """Call the CLI and return what it prints; a failure becomes a `Problem` that names `what`."""
    source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    done = subprocess.run(
        [*docker(), *arguments], capture_output=True, env=_environment(), check=False, **source
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).decode(errors="replace").splitlines()[-15:])
        raise Problem(f"{what} failed:\n{tail}")
    return bytes(done.stdout).decode()


def inspect(reference: str) -> Inspection | None:
    """Return what the engine knows of an image, or None when it has no such image."""
    done = subprocess.run(
        [*docker(), "image", "inspect", reference], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return None
    found: list[Inspection] = json.loads(done.stdout)
    return found[0]


def inspect_all(references: list[str]) -> dict[str, Inspection]:
    """Return what the engine knows of each image, asked once; a `Problem` names those it lacks."""
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
    """Return a reference for one step of one build; process numbers repeat between containers."""
    return f"{repository}:{_OWN}{int(time.time())}-{secrets.token_hex(6)}"


def remove(reference: str) -> None:
    """Take a name from an image; in use by a container, or gone meanwhile: either is fine."""
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
    """Run a command in an image as the product does: no network, nothing writable, no rights."""
    return run(
        [
            *("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--user", user),
            *("--entrypoint", command[0], image, *command[1:]),
        ],
        what=f"trying `{' '.join(command)}` in {image}",
    )


def package_version(image: str, package: str) -> str:
    """Return the version of a Debian package in an image."""
    query = ["dpkg-query", "--show", "--showformat", "${Version}", package]
    return try_run(image, query, user="0:0").strip()


def prune_tags(repository: str, *, keep: int, current: str) -> None:
    """Remove a repository's older tags but the newest few: disks fill up otherwise."""
    listed = run(
        ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository],
        what=f"listing {repository}",
    ).split()
    old = [name for name in listed if name != current][max(keep - 1, 0) :]
    for name in old:
        remove(name)


def prune_own() -> None:
    """Remove the images of steps whose builds were killed: no build takes a day."""
    pattern = f"reference=airlift-*/*:{_OWN}*"
    form = ["--format", "{{.Repository}}:{{.Tag}}"]
    names = run(["image", "ls", "--filter", pattern, *form], what="listing images").split()
    for name in names:
        made = name.rpartition(f":{_OWN}")[2].partition("-")[0]
        if made.isdigit() and int(made) < time.time() - _OWN_SECONDS:
            remove(name)


@functools.cache
def _environment() -> dict[str, str]:
    """Ask for BuildKit where the CLI can do it without a plugin, or has the plugin."""
    version = subprocess.run([*docker(), "--version"], capture_output=True, text=True, check=False)
    major = re.search(r"version (\d+)", version.stdout)
    plain = major is not None and int(major.group(1)) <= _PLAIN_BUILDER_LAST
    plugin = subprocess.run([*docker(), "buildx", "version"], capture_output=True, check=False)
    able = plain or plugin.returncode == 0
    return {**os.environ, "DOCKER_BUILDKIT": "1" if able else "0"}


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
