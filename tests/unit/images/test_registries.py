"""The `registry` source against Debian's docker-registry on loopback, with test images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bundle.builder.images import collect, engine
from bundle.builder.images.blobs import BlobCache
from bundle.builder.images.layout import write_layout
from bundle.builder.images.lockfile import Upstream
from bundle.builder.images.upstream import loaded, pull, resolve
from bundle.builder.problems import Problem
from tests.unit.images.imagekit import TRUE, Registry, TinyImage, free_port, sha256, tar

pytestmark = pytest.mark.docker

PROGRAM = tar({"true": TRUE})
# About 1 MB that does not compress, so that a blob can be damaged in its middle.
NOISE = bytes(i * 2654435761 >> 13 & 255 for i in range(1 << 20))


def image(*, words: str, architecture: str = "amd64") -> TinyImage:
    layers = [PROGRAM, tar({"words": words.encode(), "noise": NOISE})]
    return TinyImage(layers, env=[f"WORDS={words}"], architecture=architecture)


def both(words: str) -> list[TinyImage]:
    """Return an index whose first entry is another architecture, so that it must not be taken."""
    return [image(words=words, architecture="arm64"), image(words=words)]


@pytest.fixture(autouse=True)
def _mirrored(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every request to this registry, never to a public one."""
    monkeypatch.setenv("AIRLIFT_REGISTRY_MIRROR", registry.host)


@pytest.fixture
def _clean_engine(engine_here: None) -> Iterator[None]:
    yield
    for name in ("upstream/one", "upstream/base", "upstream/only", "build/tiny-app"):
        engine.prune_tags(f"airlift-{name}", keep=0, current="")
    engine.remove("airlift/tiny-app:registry")


def test_this_platforms_image_byte_for_byte(
    registry: Registry, tmp_path: Path, notes: list[str]
) -> None:
    digest = registry.push("library/one", "1.0", both("one"))
    blobs = BlobCache()
    pulled = pull(Upstream("docker.io/library/one", "1.0", digest), blobs, notes.append)
    wanted = image(words="one")
    assert pulled.config_digest == wanted.id
    assert [layer.diff_id for layer in pulled.layers] == wanted.diff_ids
    assert pulled.unpacked_size == sum(map(len, wanted.layers))

    write_layout(tmp_path / "layout", {"one": pulled}, blobs)
    placed = list((tmp_path / "layout" / "blobs" / "sha256").iterdir())
    assert len(placed) == 4
    for path in placed:
        upstream = registry.blob(f"sha256:{path.name}")
        assert path.read_bytes() == upstream.read_bytes()
    index = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    assert index["manifests"][0]["mediaType"] == pulled.media_type


def test_the_second_pull_asks_nobody(
    registry: Registry, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = Upstream(
        "docker.io/library/one", "1.0", registry.push("library/one", "1.0", both("one"))
    )
    first = pull(upstream, BlobCache(), notes.append)
    said = len(notes)
    monkeypatch.setenv("AIRLIFT_REGISTRY_MIRROR", f"127.0.0.1:{free_port()}")
    assert pull(upstream, BlobCache(), notes.append) == first
    assert len(notes) == said


@pytest.mark.parametrize("now", ["moved", "vanished"])
def test_a_pinned_image_is_pulled_whatever_its_tag_means_now(
    now: str, registry: Registry, notes: list[str]
) -> None:
    """A hotfix of an old release uses the same images as that release."""
    old = registry.push(f"library/{now}", "1.0", both("old"))
    if now == "moved":
        assert registry.push(f"library/{now}", "1.0", both("new")) != old
    else:
        registry.untag(f"library/{now}", "1.0")
    pin = Upstream(f"docker.io/library/{now}", "1.0", old)
    assert pull(pin, BlobCache(), notes.append).config_digest == image(words="old").id
    if now == "moved":
        assert resolve(pin)[0] != old, "`lock --check` reports it"


def test_an_index_that_is_not_what_was_pinned_is_refused(
    registry: Registry, notes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pinned digest is compared even if skopeo does not, as this stand-in."""
    digest = registry.push("library/swapped", "1.0", both("swapped"))
    program = tmp_path / "bin" / "skopeo"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '{}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(Problem, match="gives other bytes than the pinned digest"):
        pull(Upstream("docker.io/library/swapped", "1.0", digest), BlobCache(), notes.append)


def test_a_missing_image_is_named(notes: list[str]) -> None:
    pin = Upstream("quay.io/nobody/nothing", "9", "sha256:" + "1" * 64)
    with pytest.raises(Problem) as caught:
        pull(pin, BlobCache(), notes.append)
    assert "quay.io/nobody/nothing:9@sha256:1111" in caught.value.message
    assert "does not exist there" in caught.value.message
    assert "--source debian" in caught.value.fix


def test_a_blob_that_the_registry_damaged_is_refused(registry: Registry, notes: list[str]) -> None:
    digest = registry.push("library/broken", "1.0", both("broken"))
    layout = registry.directory / "layouts" / "library_broken-1.0" / "blobs" / "sha256"
    largest = max(layout.iterdir(), key=lambda path: path.stat().st_size)
    stored = registry.blob(f"sha256:{largest.name}")
    good = stored.read_bytes()
    stored.write_bytes(good[:-9] + b"123456789")
    pin = Upstream("docker.io/library/broken", "1.0", digest)
    blobs = BlobCache()
    with pytest.raises(Problem, match=r"docker\.io/library/broken:1\.0"):
        pull(pin, blobs, notes.append)
    assert blobs.image(digest) is None
    assert not [p for p in blobs.directory.rglob("*") if p.is_file() and p.stat().st_size > 1 << 19]
    stored.write_bytes(good)
    assert pull(pin, blobs, notes.append).config_digest == image(words="broken").id


def test_layers_that_are_not_the_configs_are_refused(registry: Registry, notes: list[str]) -> None:
    class Lying(TinyImage):
        @property
        def diff_ids(self) -> list[str]:
            return [sha256(b"another layer") for _ in self.layers]

    digest = registry.push("library/lying", "1.0", [Lying([PROGRAM])])
    with pytest.raises(Problem, match="unpacks to"):
        pull(Upstream("docker.io/library/lying", "1.0", digest), BlobCache(), notes.append)


def test_no_image_for_this_platform_is_named(registry: Registry, notes: list[str]) -> None:
    digest = registry.push("library/arm", "1.0", both("arm")[:1])
    with pytest.raises(Problem, match="has no image for linux/amd64"):
        pull(Upstream("docker.io/library/arm", "1.0", digest), BlobCache(), notes.append)


@pytest.fixture
def small_product(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a lock of two images and an app on a base, all from the registry."""

    def no_wheels(_requirements: Path, _controller: Path, dest: Path, **_named: object) -> None:
        (dest / "it.whl").write_text("wheel")

    monkeypatch.setattr("bundle.builder.wheels.collect_app", no_wheels)

    def pin(name: str) -> dict[str, str]:
        digest = registry.push(f"library/{name}", "v2.0", both(name))
        return {"image": f"docker.io/library/{name}", "tag": "v2.0", "digest": digest}

    made = {"recipe": "it", "base": "trixie", "package": "it"}
    run = {"user": "65534:65534", "probe": ["/true"], "zones": ["data"]}
    build = {"dockerfile": "Dockerfile", "base": "base", "requirements": "none", "context": ["app"]}
    lock = {
        "format": 1,
        "debian": {"as_of": "2026-01-01", "index_max_age_days": 9, "suites": ["trixie"]},
        "bases": {"base": {**pin("base"), "debian": made}},
        "images": {
            "one": {**pin("one"), **run, "debian": made},
            "only-there": {**pin("only"), **run, "debian": {"absent": "no package"}},
            "tiny-app": {"build": build, **run},
        },
    }
    files = {
        "bundle/images.lock.yml": yaml.safe_dump(lock),
        "bundle/recipes/it.Dockerfile": "FROM scratch\n",
        "Dockerfile": "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY app wheel[s] /app/\n",
        "app/main.py": "print()\n",
    }
    for name, text in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(
        "bundle.builder.images.app._files",
        lambda tree, _build: {
            name: (tree / name).read_bytes() for name in ("Dockerfile", "app/main.py")
        },
    )
    return tmp_path / "tree" / "bundle" / "images.lock.yml"


@pytest.mark.usefixtures("_clean_engine")
@pytest.mark.slow
def test_a_whole_product_from_a_registry(
    small_product: Path, tmp_path: Path, notes: list[str]
) -> None:
    layout = tmp_path / "layout"
    got = collect.collect(small_product, "auto", "3.2.1", layout, log=notes.append)
    assert got.image_source == "registry"
    assert got.absent == {}
    assert sorted(got.components) == ["one", "only-there", "tiny-app"]
    one, app = got.components["one"], got.components["tiny-app"]
    assert (one["version"], one["drift"], app["version"]) == ("2.0", None, "3.2.1")
    assert one["pinned"].startswith("docker.io/library/one:v2.0@sha256:")
    assert one["config_digest"] == image(words="one").id
    assert one["layers"][0]["media_type"].endswith("tar+gzip")
    # The app keeps upstream's layers and adds its own, compressed with zstd.
    assert app["diff_ids"][:2] == image(words="base").diff_ids
    assert app["layers"][2]["media_type"].endswith("tar+zstd")
    assert app["pinned"].startswith("docker.io/library/base:v2.0@sha256:")
    for component in got.components.values():
        for digest in (component["manifest_digest"], component["config_digest"]):
            assert (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).is_file()
    assert engine.image_id("airlift/tiny-app:registry")

    said = len(notes)
    again = collect.collect(small_product, "registry", "3.2.1", layout, log=notes.append)
    assert again == got
    assert len(notes) == said, f"the second build did work: {notes[said:]}"


@pytest.mark.usefixtures("_clean_engine")
def test_a_build_that_ends_leaves_the_images_that_another_one_tries(
    registry: Registry, notes: list[str]
) -> None:
    pin = Upstream("docker.io/library/one", "1.0", registry.push("library/one", "1.0", both("one")))
    blobs = BlobCache()
    image = pull(pin, blobs, notes.append)
    with loaded(pin, image, blobs) as mine:
        with loaded(pin, image, blobs) as others:
            assert engine.image_id(others)
        assert engine.image_id(others) is None
        assert engine.image_id(mine)
        engine.prune_own()
        assert engine.image_id(mine), "only images older than a day are leftovers"


@pytest.mark.usefixtures("_clean_engine")
def test_an_image_whose_probe_fails_is_refused(
    small_product: Path, tmp_path: Path, notes: list[str]
) -> None:
    text = small_product.read_text().replace("- /true", "- /false")
    small_product.write_text(text)
    with pytest.raises(Problem, match=r"testing `/false` in airlift-upstream/.* failed"):
        collect.collect(small_product, "registry", "3.2.1", tmp_path / "l", log=notes.append)
