"""A cluster is complete or absent, and only images of the same source can open it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

cluster = plugin("postgres/library/postgres_cluster.py")


def run(home: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
    flushed: list[list[str]] = []
    params = {
        "home": str(home),
        "data": str(home / "data"),
        "staging": str(home / "data.staging"),
        "marker": "airlift-cluster.json",
        "user": f"{os.getuid()}:{os.getgid()}",
        "image_source": "debian",
        "major": "17",
        "host": "data-1",
        "made": False,
        **options,
    }

    def command(words: list[str], *, check_rc: bool) -> None:
        assert check_rc
        # The flushed folder has not been moved into place yet.
        assert Path(words[-1]).is_dir()
        assert not (home / "data").exists()
        flushed.append(words)

    module = SimpleNamespace(params=params, check_mode=check, run_command=command)
    result: dict[str, Any] = cluster.run(module)
    assert len(flushed) == bool(params["made"])
    return result


def make(home: Path) -> None:
    """Create what initdb creates."""
    (home / "data.staging").mkdir()
    (home / "data.staging/PG_VERSION").write_text("17\n")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "airlift/postgres"


@pytest.fixture
def made(home: Path) -> Path:
    run(home)
    make(home)
    assert run(home, made=True) == {"changed": True, "due": False}
    return home


def test_a_new_host_gets_one(home: Path) -> None:
    assert run(home) == {"changed": True, "due": True}
    assert home.stat().st_mode & 0o7777 == 0o700
    assert run(home) == {"changed": False, "due": True}
    make(home)
    run(home, made=True)
    marker = home / "data/airlift-cluster.json"
    assert json.loads(marker.read_text()) == {"format": 1, "image_source": "debian", "major": "17"}
    assert marker.stat().st_mode & 0o7777 == 0o600
    assert list(home.iterdir()) == [home / "data"]


def test_nothing_is_to_do_on_a_host_that_has_one(made: Path) -> None:
    assert run(made) == {"changed": False, "due": False}
    assert run(made, check=True) == {"changed": False, "due": False}


def test_rights_of_its_home_are_corrected(made: Path) -> None:
    made.chmod(0o755)
    assert run(made, check=True)["changed"]
    assert run(made) == {"changed": True, "due": False}
    assert run(made)["changed"] is False
    assert made.stat().st_mode & 0o7777 == 0o700


def test_check_mode_tells_the_truth_and_touches_nothing(home: Path, tmp_path: Path) -> None:
    assert run(home, check=True) == {"changed": True, "due": True}
    assert list(tmp_path.iterdir()) == []
    run(home)
    make(home)
    assert run(home, check=True) == {"changed": True, "due": True}
    assert (home / "data.staging/PG_VERSION").exists()


def test_what_a_killed_run_left_is_removed(home: Path) -> None:
    run(home)
    make(home)
    assert run(home)["due"]
    assert list(home.iterdir()) == []


def test_an_unfinished_one_beside_a_good_one_stays(made: Path) -> None:
    """No cluster is due there, so nothing is touched."""
    make(made)
    assert run(made) == {"changed": False, "due": False}
    assert (made / "data.staging").exists()


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        (None, "data on data-1 holds something that Airlift did not make. Move it away"),
        ({"major": "16"}, r"The cluster on data-1 is of Postgres 16, this release has Postgres 17"),
        ({"image_source": "registry"}, r"another C library could .* built with --source registry"),
        ("{", "airlift-cluster.json on data-1 is damaged"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_a_cluster_of_others_is_refused(
    made: Path, marker: dict[str, str] | str | None, reason: str, *, check: bool
) -> None:
    path = made / "data/airlift-cluster.json"
    good = json.loads(path.read_text())
    path.unlink()
    if marker is not None:
        path.write_text(marker if isinstance(marker, str) else json.dumps({**good, **marker}))
    with pytest.raises(cluster.RefusedError, match=reason):
        run(made, check=check)
    path.write_text(json.dumps(good))
    run(made, check=check)


def test_even_a_link_that_leads_nowhere_is_not_replaced(home: Path) -> None:
    run(home)
    (home / "data").symlink_to(home / "nowhere")
    with pytest.raises(cluster.RefusedError, match="did not make"):
        run(home)


def test_what_appeared_meanwhile_is_not_replaced(home: Path) -> None:
    run(home)
    make(home)
    (home / "data").symlink_to(home / "nowhere")
    with pytest.raises(cluster.RefusedError, match="appeared meanwhile"):
        run(home, made=True)
    assert (home / "data.staging/PG_VERSION").exists()
