"""Push the service's image to a registry, under a name that never moves: version and commit.

    REGISTRY=ghcr.io/acme/airlift python3 scripts/push_image.py IMAGE

REGISTRY_USER and REGISTRY_PASSWORD_FILE log in first; without them what the engine has counts.
A name that the registry has already is left as it is. The password is read from a file and goes to
the client's standard input; the folder that it is kept in lasts as long as this program.
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

#: HOST[:PORT]/PATH, without a tag: that is not for the caller to choose.
REPOSITORY = re.compile(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+")


class PushError(Exception):
    """What is wrong, and what to do, in a sentence."""


class Done(NamedTuple):
    """How the engine's client ended."""

    code: int
    output: str
    error: str


class Client:
    """The engine's client, with a folder of its own for what it is told in confidence."""

    def __init__(self, folder: str) -> None:
        self.environment = dict(os.environ)
        if os.environ.get("REGISTRY_USER"):
            self.environment["DOCKER_CONFIG"] = folder

    def call(self, *words: str, stdin: str = "") -> Done:
        """Call it."""
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
        """Call it; raise what it said when it failed."""
        done = self.call(*words, stdin=stdin)
        if done.code != 0:
            said = (done.error or done.output).splitlines() or ["no word"]
            raise PushError(f"{what}: {said[-1]}")
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
        raise PushError(f"the tree has changes that no commit has ({names}): commit them first")
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
        # What a registry without this name says differs; a name that is there has a manifest.
        known = client.call("manifest", "inspect", *insecure(repository), "--verbose", name)
        if known.code == 0:
            found = json.loads(known.output)
            # An index lists its images; ours is one image.
            found = found[0] if isinstance(found, list) else found
            return name, str(found["Descriptor"]["digest"]), False
        client.must(f"cannot name {image} {name}", "tag", image, name)
        said = client.must(f"cannot push {name}", "push", name)
        digest = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
        if not digest:
            raise PushError(f"{name} was pushed, and its digest was not said: {said[-200:]}")
        return name, digest[1], True


def insecure(repository: str) -> list[str]:
    """Return the option for a registry on this machine, as `docker push` has it by itself."""
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
        raise PushError(f"{file} cannot be read: {error.strerror}") from error
    words = ("login", "--username", user, "--password-stdin", host)
    client.must(f"{host} does not accept {user}", *words, stdin=password)


def main(words: list[str]) -> int:
    """Push the image that is named; tell the pipeline its name and digest."""
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        name, digest, pushed = push(words[0])
    except (PushError, VersionError) as error:
        print(f"push: {error}", file=sys.stderr)
        return 1
    print(f"{name}@{digest} {'is pushed' if pushed else 'was there: nothing was pushed'}")
    if path := os.environ.get("GITHUB_OUTPUT"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"name={name.rpartition(':')[0]}\ndigest={digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
