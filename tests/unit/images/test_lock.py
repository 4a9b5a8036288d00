"""`bundle lock` against Debian's docker-registry on loopback writes the tags' digests in place."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

import pytest

from bundle.builder import machine
from bundle.builder.images import lockfile, relock, upstream
from bundle.builder.images.blobs import BlobCache
from bundle.builder.images.lockfile import Upstream
from bundle.builder.problems import Problem
from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from tests.unit.images.imagekit import Registry, TinyImage, tar

ZERO = "sha256:" + "0" * 64


def both(words: str) -> list[TinyImage]:
    """Return images of two supported architectures and an unknown one."""
    return [
        TinyImage([tar({"words": words.encode()})], architecture=name)
        for name in ("s390x", "arm64", "amd64")
    ]


@pytest.fixture(autouse=True)
def _mirrored(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLIFT_REGISTRY_MIRROR", registry.host)


@pytest.fixture
def file(registry: Registry, tmp_path: Path) -> Path:
    """Write a lock of two images and a base, with comments, in a person's style."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "it.Dockerfile").write_text("FROM scratch\n")
    for name in ("one", "two", "base"):
        registry.push(f"library/{name}", "v2.0", both(name))
    path = tmp_path / "images.lock.yml"
    path.write_text(f"""# The head of the file.
format: 1

debian: {{as_of: "2026-01-01", index_max_age_days: 9, suites: [trixie]}}

bases:
  base:
    image: docker.io/library/base
    tag: "v2.0"
    digest: "{ZERO}"
    debian: {{recipe: it, base: trixie, package: it}}

images:
  one:
    image: docker.io/library/one
    tag: "v2.0"  # the newest
    digest: "{ZERO}"
    licence: MIT
    user: "1:1"
    probe: [sh, -c, "a very long command that a writer of YAML would like to fold, 0123456789 0123456789 0123456789"]
    zones: [data]
    debian: {{recipe: it, base: trixie, package: it}}

  # Why there are two.
  two:
    image: docker.io/library/two
    tag: "v2.0"
    digest: "{ZERO}"
    user: "1:1"
    probe: [/true]
    zones: [app, data]
    debian:
      absent: no package
""")  # noqa: E501 - the width is the point
    return path


def run(*words: str | Path) -> int:
    return main(["lock", *map(str, words)])


def test_everything_behind_a_tag_is_written_and_nothing_else(file: Path) -> None:
    before = file.read_text().splitlines()
    assert run("--file", file) == 0
    after = file.read_text().splitlines()
    # All lines without a digest are unchanged, comments and line breaks included.
    kept = [line for line in before if ZERO not in line]
    written = iter(after)
    assert all(line in written for line in kept)
    one = lockfile.load(file).images["one"].upstream
    assert one is not None
    assert sorted(one.platforms) == ["amd64", "arm64"]
    arm, amd = both("one")[1:]
    assert one.platforms["amd64"].config == amd.id
    assert one.platforms["arm64"].config == arm.id
    assert list(one.platforms["arm64"].diff_ids) == arm.diff_ids


def test_a_second_time_changes_no_byte(file: Path) -> None:
    run("--file", file)
    before = file.read_bytes()
    assert run("--file", file) == 0
    assert file.read_bytes() == before


def test_check_writes_nothing_and_fails_when_a_tag_moved(
    file: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--file", file)
    assert run("--file", file, "--check") == 0
    before = file.read_bytes()
    digest = registry.push("library/one", "v2.0", both("moved"))
    capsys.readouterr()
    assert run("--file", file, "--check", "--json") == Kind.MOVED.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert f"docker.io/library/one:v2.0 is {digest} now" in error["what"]
    assert "two" not in error["what"]
    assert error["fix"].endswith("python -m bundle lock one")
    assert file.read_bytes() == before
    # Accept one image by name; the others are not queried.
    assert run("--file", file, "one") == 0
    assert run("--file", file, "--check") == 0


def test_a_name_that_is_not_there_is_refused(file: Path) -> None:
    with pytest.raises(Problem, match="pins no image named three") as caught:
        relock.ask(file, ["three"])
    assert "base, one, two" in caught.value.fix


def test_one_image_that_cannot_be_asked_leaves_the_lock_alone(file: Path) -> None:
    file.write_text(file.read_text().replace("library/two", "library/gone"))
    before = file.read_bytes()
    with pytest.raises(AirliftError, match=r"library/gone:v2\.0"):
        relock.write(file, relock.ask(file))
    assert file.read_bytes() == before


def test_a_single_image_is_no_pin(registry: Registry) -> None:
    registry.push("library/one", "v2.0", both("one"))
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]
    copy += ["--dest-tls-verify=false", f"docker://{registry.host}/library/one:v2.0"]
    subprocess.run([*copy, f"docker://{registry.host}/library/single:v2.0"], check=True)
    with pytest.raises(Problem, match="is a single image, not an index of several"):
        upstream.resolve(Upstream("docker.io/library/single", "v2.0", ZERO))


def test_a_lock_that_contradicts_itself_stops_a_build(file: Path) -> None:
    run("--file", file)
    pins = lockfile.load(file).images
    one, two = pins["one"].upstream, pins["two"].upstream
    assert one is not None
    assert two is not None
    mixed = Upstream(one.image, one.tag, one.digest, platforms=two.platforms)
    with pytest.raises(Problem, match="the lock's platforms are not those of its digest"):
        upstream.pull(mixed, BlobCache(), lambda _: None)
    upstream.pull(one, BlobCache(), lambda _: None)


def test_an_arm_machine_gets_the_image_for_arm(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--file", file)
    one = lockfile.load(file).images["one"].upstream
    assert one is not None
    here = upstream.pull(one, BlobCache(), lambda _: None)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert (machine.architecture(), machine.wheel_architecture()) == ("arm64", "aarch64")
    there = upstream.pull(one, BlobCache(), lambda _: None)
    assert there.config_digest == one.platforms["arm64"].config != here.config_digest
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(Problem, match="this machine is riscv64"):
        machine.architecture()
