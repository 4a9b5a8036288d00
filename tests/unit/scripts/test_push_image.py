"""Image names hold version and commit, tested against Debian's docker-registry on loopback."""

import io
import json
import os
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.builder.images import engine
from scripts.version import ROOT
from tests.unit.images.imagekit import Registry, running_registry
from tests.unit.scripts.test_version import Clone

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as one:
        yield one


class Desk:
    """A clone that contains the program, and an image built from it."""

    def __init__(self, root: Path, registry: Registry) -> None:
        self.clone = Clone(root)
        for name in (
            *("scripts/__init__.py", "scripts/version.py", "scripts/push_image.py"),
            *("bundle/__init__.py", "bundle/format/__init__.py", "bundle/format/versions.py"),
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text((ROOT / name).read_text())
        (root / ".gitignore").write_text("__pycache__\noutputs\n")
        self.clone.commit("1.0.0", 1)
        self.registry = registry
        self.repository = f"{registry.host}/acme/{uuid.uuid4().hex}"
        self.image = f"pipelines-test:{uuid.uuid4().hex}"
        self.build()

    def build(self, revision: str = "") -> None:
        """Create an image of one empty layer with the label of its commit."""
        said = revision or self.clone.git("rev-parse", "HEAD")
        change = f'LABEL org.opencontainers.image.revision="{said}"'
        archive = io.BytesIO()
        tarfile.open(fileobj=archive, mode="w").close()
        words = [*engine.docker(), "import", "--change", change, "-", self.image]
        subprocess.run(words, input=archive.getvalue(), check=True, capture_output=True)

    def push(self, **settings: str) -> tuple[int, str, str]:
        environment = {**os.environ, "DOCKER": engine.docker()[0], "REGISTRY": self.repository}
        environment |= {"GITHUB_OUTPUT": str(self.clone.root / "outputs"), **settings}
        done = subprocess.run(
            [sys.executable, "scripts/push_image.py", self.image],
            cwd=self.clone.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def tags(self) -> list[str]:
        words = ["skopeo", "list-tags", "--tls-verify=false", f"docker://{self.repository}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return sorted(json.loads(done.stdout)["Tags"]) if done.returncode == 0 else []

    def remove(self) -> None:
        form = "{{.Repository}}:{{.Tag}}"
        for repository in (self.repository, self.image):
            words = [*engine.docker(), "images", "--format", form, repository]
            found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            for name in found.split():
                subprocess.run([*engine.docker(), "rmi", name], capture_output=True, check=False)


@pytest.fixture
def desk(tmp_path: Path, registry: Registry) -> Iterator[Desk]:
    made = Desk(tmp_path, registry)
    yield made
    made.remove()


def test_its_only_name_is_version_and_commit(desk: Desk) -> None:
    desk.clone.tag("v1.0.0")
    code, output, error = desk.push()
    assert code == 0, error
    tag = f"1.0.0-{desk.clone.short}"
    assert desk.tags() == [tag]
    digest = output.partition("@")[2].split()[0]
    assert output == f"{desk.repository}:{tag}@{digest} is pushed\n"
    said = (desk.clone.root / "outputs").read_text()
    assert said == f"name={desk.repository}\ndigest={digest}\n"


def test_a_name_never_moves(desk: Desk) -> None:
    first = desk.push()[1]
    # Rebuild with other bytes: the image that was pushed first must stay.
    desk.build()
    code, output, error = desk.push()
    assert code == 0, error
    assert output.endswith("existed: nothing was pushed\n")
    assert output.split()[0] == first.split()[0]


def test_an_image_of_another_commit_is_refused(desk: Desk) -> None:
    desk.build("0123456789abcdef")
    code, _, error = desk.push()
    assert code == 1
    assert "was built from commit 0123456789abcdef, not from" in error
    assert desk.tags() == []


def test_a_tree_with_changes_is_refused(desk: Desk) -> None:
    (desk.clone.root / "new.txt").touch()
    code, _, error = desk.push()
    assert code == 1
    assert "changes that are not committed (new.txt)" in error


@pytest.mark.parametrize("name", ["", "airlift", "127.0.0.1:5000/a:latest", "-v /:/x", "a/b@c"])
def test_a_repository_is_named_without_a_tag(desk: Desk, name: str) -> None:
    code, _, error = desk.push(REGISTRY=name)
    assert code == 1
    assert "set it to a repository without a tag" in error


def test_an_image_that_is_not_there_is_named_with_the_command(desk: Desk) -> None:
    subprocess.run([*engine.docker(), "rmi", desk.image], check=True, capture_output=True)
    code, _, error = desk.push()
    assert code == 1
    assert f"{desk.image} is not on this machine: make build" in error


def test_the_password_comes_from_a_file_and_is_shown_nowhere(desk: Desk, tmp_path: Path) -> None:
    """A wrapper records the client's arguments, stdin and configuration folder."""
    secret, home = tmp_path / "password", tmp_path / "home"
    secret.write_text("a-registry-password")
    client = tmp_path / "watched"
    client.write_text(
        f'#!/bin/sh\necho "$@" "$DOCKER_CONFIG" >> {tmp_path}/calls\n'
        f'[ "$1" = login ] && cat > {tmp_path}/stdin && exit 0\nexec {engine.docker()[0]} "$@"\n'
    )
    client.chmod(0o755)
    settings = {"REGISTRY_USER": "ci", "REGISTRY_PASSWORD_FILE": str(secret), "HOME": str(home)}
    desk.clone.git("config", "--local", "core.excludesFile", "/dev/null")
    for name in ("password", "watched", "calls", "stdin"):
        with (tmp_path / ".git" / "info" / "exclude").open("a") as file:
            file.write(f"{name}\n")
    code, output, error = desk.push(DOCKER=str(client), **settings)
    assert code == 0, error
    calls = (tmp_path / "calls").read_text()
    assert "login --username ci --password-stdin 127.0.0.1" in calls
    assert (tmp_path / "stdin").read_text() == "a-registry-password"
    assert "a-registry-password" not in calls + output + error
    folder = Path(calls.split()[-1])
    assert folder != home
    assert not folder.exists()
