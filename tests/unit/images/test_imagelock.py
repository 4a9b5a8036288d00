"""The image lock: the product's own is consistent, and an error is reported with its place."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bundle.builder.images import lockfile
from bundle.builder.images.lockfile import ImageLock
from bundle.builder.problems import Problem

COMPONENTS = {
    *("app", "postgres", "redis", "nginx", "prometheus", "alertmanager", "node-exporter"),
    *("postgres-exporter", "redis-exporter", "nginx-exporter", "grafana"),
}


@pytest.fixture(scope="module")
def lock(tree: Path) -> ImageLock:
    return lockfile.load(tree / "bundle" / "images.lock.yml")


@pytest.fixture
def copied(tree: Path, tmp_path: Path) -> Path:
    shutil.copytree(tree / "bundle" / "recipes", tmp_path / "bundle" / "recipes")
    path = tmp_path / "bundle" / "images.lock.yml"
    shutil.copyfile(tree / "bundle" / "images.lock.yml", path)
    return path


def test_the_products_lock(lock: ImageLock) -> None:
    assert set(lock.images) == COMPONENTS
    assert [name for name, pin in lock.images.items() if pin.absent] == ["grafana"]
    assert lock.hosts == ["docker.io", "quay.io"]
    assert {zone for pin in lock.images.values() for zone in pin.zones} == set(lockfile.ZONES)


def test_no_tag_floats(lock: ImageLock) -> None:
    pins = [pin.upstream for pin in lock.images.values() if pin.upstream]
    for pin in [*pins, *(upstream for upstream, _ in lock.bases.values())]:
        assert re.match(r"v?\d+\.\d+\.?\d*", pin.tag), pin


def test_the_dockerfile_starts_from_the_pinned_base(lock: ImageLock, tree: Path) -> None:
    upstream, _ = lock.bases["python"]
    assert f"ARG BASE_IMAGE={upstream}\n" in (tree / "Dockerfile").read_text()


def test_recipes_run_as_the_pinned_user_and_seal_what_they_make(
    lock: ImageLock, tree: Path
) -> None:
    for pin in lock.images.values():
        if pin.recipe:
            text = (tree / "bundle" / "recipes" / f"{pin.recipe.name}.Dockerfile").read_text()
            assert f"\nUSER {pin.user}\n" in text
            assert text.count("\nRUN ") == 1, "one layer on the base, so that it is shared"
            assert "    && seal_layer\n" in text


def test_every_recipe_is_used(lock: ImageLock, tree: Path) -> None:
    used = {pin.recipe.name for pin in lock.images.values() if pin.recipe}
    used |= {recipe.name for _, recipe in lock.bases.values()}
    found = {path.stem for path in (tree / "bundle" / "recipes").glob("*.Dockerfile")}
    assert found == {*used, "packages"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "    probe: [nginx, -v]",
            "    prob: [nginx, -v]",
            r"images\.nginx\.prob: not a known key",
        ),
        ("sha256:b972f8", "sha256:b972f", r"images\.nginx\.digest: 'sha256:.*is not of the form"),
        ("zones: [dmz]\n", "zones: [dnz]\n", r"images\.nginx\.zones: unknown dnz"),
        ('user: "101:101"', "user: nginx", r"images\.nginx\.user: 'nginx' is not of the form"),
        (
            "recipe: nginx,",
            "recipe: ngnix,",
            r"images\.nginx\.debian\.recipe: bundle/recipes/ngnix",
        ),
        ("recipe: nginx, base: forky", "recipe: nginx, base: sid", r"base: sid is not among"),
        ("docker.io/library/nginx", "library/nginx", r"does not begin with a registry's name"),
        ('tag: "1.30.5"', 'tag: ""', r"images\.nginx\.tag: must be a text"),
        ("base: python,", "base: ruby,", r"images\.app\.build\.base: ruby is not among bases"),
        ('as_of: "2026-11-21"', "as_of: soon", r"debian\.as_of: 'soon' is not of the form"),
        ("format: 1", "format: 2", r"format: only 1 is known"),
        ("zones: [dmz]\n", "zones: dmz\n", r"zones: must be a list"),
        ("bases:", "basis:", r"basis: not a known key"),
        ("format: 1", "format: [", r"cannot read the image lock"),
    ],
)
def test_a_mistake_is_named(copied: Path, before: str, after: str, message: str) -> None:
    text = copied.read_text()
    assert before in text
    copied.write_text(text.replace(before, after, 1))
    with pytest.raises(Problem, match=message):
        lockfile.load(copied)


def test_a_lock_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"cannot read the image lock .*nothing\.yml"):
        lockfile.load(tmp_path / "nothing.yml")
