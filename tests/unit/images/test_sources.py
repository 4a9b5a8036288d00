"""The choice of an image source, drift of versions, and the inputs of an app image."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from bundle.builder import cache, wheels
from bundle.builder.images import collect, engine, lockfile, recipes, upstream
from bundle.builder.images.app import _files
from bundle.builder.images.blobs import BlobCache
from bundle.builder.images.lockfile import ImageLock, Upstream
from bundle.builder.problems import Problem
from tests.unit.images.imagekit import free_port


@pytest.fixture
def lock(tree: Path) -> ImageLock:
    return lockfile.load(tree / "bundle" / "images.lock.yml")


@pytest.mark.parametrize(
    ("found", "tag", "expected"),
    [
        ("17.12-0+deb13u1", "17.11", "debian 17.12-0+deb13u1, pin 17.11"),
        ("5:8.10.2-3+deb13u3", "8.10.2", None),
        ("5:8.0.2-3+deb13u3", "8.10.2", "debian 5:8.0.2-3+deb13u3, pin 8.10.2"),
        ("3.5.3+ds1-6", "v3.5.3", None),
        ("0.19.1-1+b1", "v0.19.1", None),
        ("1.5.1-1", "1.5.1", None),
        ("3.13.15-2+deb13u5", "3.13.15-slim-trixie", None),
        ("3.13.5-2+deb13u5", "3.13.15-slim-trixie", "debian 3.13.5-2+deb13u5, pin 3.13.15"),
    ],
)
def test_drift_compares_upstream_versions(found: str, tag: str, expected: str | None) -> None:
    pin = Upstream("docker.io/library/it", tag, "sha256:" + "0" * 64)
    assert collect.drift("debian", found, pin) == expected


def test_an_unknown_source_is_refused(lock: ImageLock) -> None:
    with pytest.raises(Problem, match="unknown image source 'debain'"):
        collect.choose(lock, "debain", print)


def test_auto_takes_debian_quickly_where_nothing_answers(
    lock: ImageLock, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    monkeypatch.setenv("AIRLIFT_REGISTRY_MIRROR", f"127.0.0.1:{free_port()}")
    begun = time.monotonic()
    assert collect.choose(lock, "auto", notes.append) == "debian"
    assert time.monotonic() - begun < 3
    assert "cannot be reached" in notes[0]


def test_auto_takes_registries_where_they_answer(
    lock: ImageLock, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("AIRLIFT_REGISTRY_MIRROR", f"{address}/proxy")
        assert collect.choose(lock, "auto", notes.append) == "registry"


def test_one_registry_that_is_missing_is_enough_for_debian() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there, missing = f"127.0.0.1:{server.getsockname()[1]}", f"127.0.0.1:{free_port()}"
        assert upstream.unreachable([there, missing]) == [missing]


def test_a_name_that_takes_for_ever_to_look_up_does_not_delay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_args, **_named: time.sleep(20))
    begun = time.monotonic()
    assert upstream.unreachable(["registry.example", "other.example"]) == [
        "other.example",
        "registry.example",
    ]
    assert time.monotonic() - begun < 3


def test_behind_a_proxy_the_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")

    def refuse(address: tuple[str, int], timeout: float) -> None:
        asked.append(address)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", refuse)
    upstream.unreachable(["registry.example", "inside.example:5000"])
    assert sorted(asked) == [("inside.example", 5000), ("proxy.example", 3128)]


def test_no_docker_is_one_sentence_and_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLIFT_DOCKER", "/nonexistent/docker")
    with pytest.raises(Problem) as caught:
        engine.require()
    assert "no docker command" in caught.value.message
    assert "apt-get install" in caught.value.fix


def test_an_engine_that_is_down_is_one_sentence_and_a_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("AIRLIFT_DOCKER", str(program))
    with pytest.raises(Problem) as caught:
        engine.require()
    assert "Cannot connect to the Docker daemon" in caught.value.message
    assert "start it" in caught.value.fix


def test_a_context_depends_on_the_files_alone() -> None:
    one = recipes.context_of({"b": b"2", "a": b"1"}, 1_000)
    assert one == recipes.context_of({"a": b"1", "b": b"2"}, 1_000)
    with tarfile.open(fileobj=io.BytesIO(one)) as archive:
        assert [(member.name, member.mtime) for member in archive] == [("a", 1_000), ("b", 1_000)]


def test_the_app_is_built_from_what_git_knows(tmp_path: Path, lock: ImageLock) -> None:
    for name, text in {
        "Dockerfile": "FROM scratch",
        "app/main.py": "",
        "app/new.py": "",
        "app/secret.env": "",
        "docs/big.md": "",
        ".gitignore": "*.env\n",
        "app/gone.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "Dockerfile", "app/main.py", "app/gone.py"], check=True)
    (tmp_path / "app" / "gone.py").unlink()
    build = lock.images["app"].build
    assert build is not None
    files = _files(tmp_path, build)
    assert sorted(files) == ["Dockerfile", "app/main.py", "app/new.py"]


def test_outside_a_clone_the_app_build_says_so(tmp_path: Path, lock: ImageLock) -> None:
    build = lock.images["app"].build
    assert build is not None
    with pytest.raises(Problem, match="cannot list the files"):
        _files(tmp_path, build)


def test_the_apps_wheels_bring_pips_own_from_the_controllers_lock(
    tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, str]] = []

    def download(lock: str, python: str, folder: Path) -> None:
        asked.append((lock, python))
        (folder / "it.whl").write_text("wheel")

    monkeypatch.setattr(wheels, "_download", download)
    app, controller = tree / "app/requirements.txt", tree / "requirements/controller.txt"
    wheels.collect_app(app, controller, tmp_path / "one")
    wheels.collect_app(app, controller, tmp_path / "two")
    assert [python for _, python in asked] == ["3.13"], "the second time comes from the cache"
    lock = asked[0][0]
    assert lock.startswith(app.read_text())
    pip = lock.removeprefix(app.read_text())
    assert pip.count("==") == 1
    assert pip.strip().startswith("pip==")
    assert pip.count("--hash=sha256:") >= 1
    assert (tmp_path / "two" / "it.whl").read_text() == "wheel"


def test_a_lock_without_pip_cannot_make_a_wheelhouse(tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("pipx==1 \\\n    --hash=sha256:00\n")
    with pytest.raises(Problem, match="has no pip"):
        wheels.collect_app(tmp_path / "lock.txt", tmp_path / "lock.txt", tmp_path / "dest")


def test_a_cached_folder_that_was_changed_is_made_again(tmp_path: Path) -> None:
    made: list[int] = []

    def fill(folder: Path) -> None:
        made.append(1)
        (folder / "file").write_text("good")

    place = cache.folder("kind", "name", fill)
    assert cache.folder("kind", "name", fill) == place
    assert len(made) == 1
    (place / "file").write_text("bad")
    assert (cache.folder("kind", "name", fill) / "file").read_text() == "good"
    (place / "more").write_text("unlisted")
    assert not (cache.folder("kind", "name", fill) / "more").exists()
    assert len(made) == 3


def test_a_folder_that_could_not_be_filled_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise Problem("no network")

    with pytest.raises(Problem, match="no network"):
        cache.folder("kind", "name", fill)
    assert not list((cache.root() / "kind").iterdir())


def skopeo_says(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the error of a pull whose skopeo fails with this message."""
    program = tmp_path / "bin" / "skopeo"
    program.parent.mkdir(exist_ok=True)
    (program.parent / "said").write_text(said)
    program.write_text('#!/bin/sh\ncat "${0%/*}/said" >&2; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    pin = Upstream("docker.io/denied/timeout", "429", "sha256:" + "403404429401" * 5 + "4040")
    with pytest.raises(Problem) as caught:
        upstream.pull(pin, BlobCache(tmp_path / "oci"), lambda _: None)
    return caught.value.message.splitlines()[0]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("toomanyrequests: You have reached your pull rate limit", "limits how often"),
        ("unauthorized: authentication required", "wants a login"),
        ("denied: requested access to the resource is denied", "wants a login"),
        ("reading manifest: manifest unknown", "does not exist there"),
        ("dial tcp 10.4.29.1:443: connect: connection refused", "cannot be reached"),
        ("dial tcp: lookup x: no such host", "cannot be reached"),
    ],
)
def test_the_reason_of_a_failed_pull_is_the_registrys_own_word(
    said: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reason in skopeo_says(f"FATA[0000] {said}", tmp_path, monkeypatch)


def test_digits_in_a_digest_a_port_or_a_name_are_no_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words of the image's own name are no reason either."""
    digest = "sha256:" + "403404429401" * 5 + "4040"
    said = f"reading docker://docker.io/denied/timeout@{digest}: layer 401 of 429: unexpected EOF"
    found = skopeo_says(said, tmp_path, monkeypatch)
    assert found.endswith("cannot be pulled")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            "E: Release file for http://x/InRelease is expired (invalid since 9d)",
            "use a newer mirror",
        ),
        (
            "Err:1 http://x trixie InRelease\n  Could not connect to x:80",
            "where a Debian mirror can be reached",
        ),
        ("  Temporary failure resolving 'x'", "where a Debian mirror can be reached"),
        ("dpkg: error processing package libresolve-expired-connect", "read mmdebstrap's message"),
    ],
)
def test_the_advice_after_mmdebstrap_follows_what_apt_said(said: str, advice: str) -> None:
    assert advice in recipes._advice(said)
