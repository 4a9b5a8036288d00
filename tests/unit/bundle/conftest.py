"""Fixtures: keys and bundles are made once per session; each test has its own home."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.builder import build, content
from bundle.carry import split
from bundle.jumphost import venv
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import FakeSuppliers, Keys, Recipe, fake_venv, make_tree
from tests.unit.bundle.deltakit import Dist, make_dist
from tests.unit.bundle.printed import Typed


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep results about made-up images out of the builder's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRLIFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    """Return the smallest bundle that a verifier accepts."""
    return Recipe().make(tmp_path_factory.mktemp("small") / "airlift-1.0.0-amd64.tar", keys)


@pytest.fixture
def craft(tmp_path: Path, keys: Keys) -> Callable[[Recipe], Path]:
    """Return a function that makes a bundle from a recipe."""

    def make(recipe: Recipe) -> Path:
        return recipe.make(tmp_path / f"airlift-{recipe.version}-{recipe.serial}.tar", keys)

    return make


@pytest.fixture(scope="session")
def suppliers() -> FakeSuppliers:
    return FakeSuppliers()


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory, suppliers: FakeSuppliers) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"), suppliers.wheelhouse[1])


@pytest.fixture(scope="session")
def full(
    tmp_path_factory: pytest.TempPathFactory, keys: Keys, tree: Path, suppliers: FakeSuppliers
) -> build.Built:
    """Return a bundle made by `build`, with a wheelhouse that can set up a jump host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "COLLECTIONS", ())
        patch.setenv("SOURCE_DATE_EPOCH", "1767225600")
        options = build.Options(
            tree=tree,
            out=tmp_path_factory.mktemp("dist"),
            keys=(keys.key(),),
            identity="release@airlift.example",
        )
        return build.build(options, suppliers, log=lambda _: None)


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory, tree: Path, keys: Keys) -> Dist:
    """Return release 1.0.0, and release 1.1.0 in full and as a delta."""
    return make_dist(tmp_path_factory.mktemp("dist"), tree, keys)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "opt" / "airlift")


@pytest.fixture
def typed(keys: Keys, home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Typed:
    """Return an operator who types the commands that Airlift prints."""
    desk = tmp_path / "desk"
    desk.mkdir()
    return Typed(keys, home, capsys, desk)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "make", fake_venv)


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    """Return a bundle with one large blob, enough for at least eleven parts."""
    recipe = Recipe(app_layer=random.Random(3).randbytes(3_000_000))
    return recipe.make(tmp_path_factory.mktemp("vendor") / "airlift-1.0.0-amd64.tar", keys)


@pytest.fixture
def stick(big: Path, tmp_path: Path, keys: Keys) -> Path:
    """Return the index of its parts on a USB drive."""
    out = tmp_path / "usb"
    key = keys.key()
    split.split(big, size=400_000, out=out, key=key, log=lambda _: None, progress=lambda _: None)
    return out / "airlift-1.0.0-amd64.tar.parts"
