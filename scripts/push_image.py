"""Push the service's image to a registry, under an immutable name: version and commit.

    REGISTRY=ghcr.io/acme/airlift python3 scripts/push_image.py IMAGE

REGISTRY_USER and REGISTRY_PASSWORD_FILE log in first; without them the engine's own login is used.
A name that exists in the registry is not pushed again. The password is read from a file and passed
on standard input; the client keeps it in a folder that is removed when this program ends.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import version as versions
from scripts.version import VersionError

#: HOST[:PORT]/PATH without a tag, because version and commit determine the tag.
REPOSITORY = re.compile(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+")


class PushError(Exception):
    """Problem and fix, in one sentence."""


class Done(NamedTuple):
    """The result of a call of the engine's client."""

    code: int
    output: str
    error: str


class Client:
    """The engine's client, with its own folder for the login."""

    def __init__(self, folder: str) -> None:
        self.environment = dict(os.environ)
        if os.environ.get("REGISTRY_USER"):
            self.environment["DOCKER_CONFIG"] = folder

    def call(self, *words: str, stdin: str = "") -> Done:
        """Call the client."""
        program = os.environ.get("DOCKER", "docker")
        done = subprocess.run(
            [program, *words],
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout.strip(), done.stderr.strip())

    def must(self, what: str, *words: str, stdin: str = "") -> str:
        """Call the client; raise its error message if it fails."""
        done = self.call(*words, stdin=stdin)
        if done.code != 0:
            lines = (done.error or done.output).splitlines() or ["no error message"]
            raise PushError(f"{what}: {lines[-1]}")
        return done.output


def push(image: str, tree: Path = versions.ROOT) -> tuple[str, str, bool]:
    """Push; return the name, its digest, and whether anything was pushed."""
    repository = os.environ.get("REGISTRY", "")
    if not REPOSITORY.fullmatch(repository):
        raise PushError(
            f"REGISTRY is {repository!r}: set it to a repository without a tag, such as "
            "ghcr.io/acme/airlift"
        )
    now = versions.of(tree)
    if dirty := versions.git(tree, "status", "--porcelain"):
        names = ", ".join(line[3:] for line in dirty.splitlines()[:3])
        raise PushError(f"the tree has changes that are not committed ({names}): commit them first")
    name = f"{repository}:{now.image_tag}"
    with tempfile.TemporaryDirectory() as folder:
        client = Client(folder)
        label = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
        built = client.must(
            f"{image} is not on this machine: make build", "inspect", "--format", label, image
        )
        if built != now.revision:
            raise PushError(
                f"{image} was built from commit {built or 'unknown'}, not from {now.revision}: "
                "make build"
            )
        login(client, repository.partition("/")[0])
        # Registries report a missing name differently, but an existing name has a manifest.
        known = client.call("manifest", "inspect", *insecure(repository), "--verbose", name)
        if known.code == 0:
            found = json.loads(known.output)
            # An index lists several images, but this name has only one.
            found = found[0] if isinstance(found, list) else found
            return name, str(found["Descriptor"]["digest"]), False
        client.must(f"cannot name {image} {name}", "tag", image, name)
        output = client.must(f"cannot push {name}", "push", name)
        digest = re.search(r"digest: (sha256:[0-9a-f]{64})", output)
        if not digest:
            raise PushError(f"{name} was pushed, but no digest was reported: {output[-200:]}")
        return name, digest[1], True


def insecure(repository: str) -> list[str]:
    """Return the option for a registry on this machine, which `docker push` implies."""
    return ["--insecure"] if re.match(r"(127\.0\.0\.1|localhost)[:/]", repository) else []


def login(client: Client, host: str) -> None:
    """Log in, if a user is named."""
    user, file = os.environ.get("REGISTRY_USER"), os.environ.get("REGISTRY_PASSWORD_FILE")
    if not user:
        return
    if not file:
        raise PushError("REGISTRY_PASSWORD_FILE is not set: name the file with the password")
    try:
        password = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise PushError(f"cannot read {file}: {error.strerror}") from error
    words = ("login", "--username", user, "--password-stdin", host)
    client.must(f"{host} does not accept {user}", *words, stdin=password)


def main(words: list[str]) -> int:
    """Push the named image; report its name and digest to the pipeline."""
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        name, digest, pushed = push(words[0])
    except (PushError, VersionError) as error:
        print(f"push: {error}", file=sys.stderr)
        return 1
    print(f"{name}@{digest} {'is pushed' if pushed else 'existed: nothing was pushed'}")
    if path := os.environ.get("GITHUB_OUTPUT"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"name={name.rpartition(':')[0]}\ndigest={digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
