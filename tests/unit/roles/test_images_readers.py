"""Both ways to deliver images to a host protect the store from a prune meanwhile."""

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail

from bundle.errors import AirliftError
from bundle.jumphost import readers
from tests.unit.roles.conftest import plugin

deliver = plugin("images/action_plugins/images_deliver.py")

COMPONENTS: dict[str, Any] = {
    "app": {
        "manifest_digest": "sha256:" + "a" * 64,
        "config_digest": "sha256:" + "b" * 64,
        "diff_ids": [],
        "layers": [],
        "unpacked_size": 0,
    }
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    blobs = tmp_path / "store" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for name in "ab":
        (blobs / (name * 64)).write_bytes(b"{}")
    return tmp_path / "store"


def action(store: Path, way: str) -> Any:
    """Return the action for a host that lacks the image; the module on the host is missing."""
    arguments = {"components": COMPONENTS, "store": str(store), "port": 0, "way": way}
    task = MagicMock(args=arguments, check_mode=False, async_val=0)
    made = deliver.ActionModule(
        task=task,
        connection=MagicMock(transport="local"),
        play_context=MagicMock(),
        loader=MagicMock(),
        templar=MagicMock(),
        shared_loader_obj=MagicMock(),
    )
    state = {"missing": ["app"], "absent": ["app"], "layers": [], "store": "overlay2", "free": 1}
    made._engine = lambda *_, **__: {**state, "port_taken": False}
    return made


@pytest.mark.parametrize("way", ["registry", "stream"])
def test_no_blob_goes_while_images_travel(
    way: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def travels(*_: object, **__: object) -> tuple[str, dict[str, Any], int]:
        with pytest.raises(AirliftError) as caught, readers.nobody(store):
            pass
        refused.append(caught.value.what)
        return way, {}, 0

    one = action(store, way)
    monkeypatch.setattr(one, "_by_registry" if way == "registry" else "_by_stream", travels)
    assert one.run(task_vars={"inventory_hostname": "app-1"})["way"] == way
    assert "hosts are served from this store" in refused[0]
    with readers.nobody(store):
        pass


def test_a_delivery_while_a_prune_works_fails_with_its_sentence(store: Path) -> None:
    with (
        readers.nobody(store),
        pytest.raises(AnsibleActionFail, match="a prune is removing blobs of this store"),
    ):
        action(store, "auto").run(task_vars={"inventory_hostname": "app-1"})
