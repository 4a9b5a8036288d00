"""The archive that is streamed where ports cannot be forwarded, and the rule of identity."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from roles.images.delivery import archive, ssh
from tests.unit.roles.conftest import plugin

engine = plugin("images/library/images_engine.py")


class Store:
    """Blobs in a folder, and components over them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs/sha256").mkdir(parents=True)

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "blobs/sha256" / digest).write_bytes(data)
        return f"sha256:{digest}"

    def component(self, name: str, *layers: bytes) -> dict[str, Any]:
        return {
            "version": "1.0",
            "repository": f"airlift/{name}",
            "manifest_digest": self.put(f"manifest {name}".encode()),
            "config_digest": self.put(f"config {name}".encode()),
            "diff_ids": [f"diff {layer.decode()}" for layer in layers],
            "layers": [{"digest": self.put(layer), "size": len(layer)} for layer in layers],
        }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def members(store: Store, components: list[Any], chains: set[tuple[str, ...]]) -> dict[str, bytes]:
    stream = io.BytesIO()
    archive.write_archive(stream, store.root, components, chains)
    stream.seek(0)
    found = {}
    with tarfile.open(fileobj=stream) as tar:
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            assert entry.name not in found
            found[entry.name] = file.read()
    return found


def test_a_shared_layer_is_sent_once(store: Store) -> None:
    components = [store.component("a", b"base", b"a"), store.component("b", b"base", b"b")]
    found = members(store, components, set())
    blobs = [name for name in found if name.startswith("blobs/")]
    assert len(blobs) == 2 * 2 + 3
    assert archive.bytes_to_send(components, set()) == 4 + 1 + 1


def test_it_is_an_oci_layout_and_dockers_own(store: Store) -> None:
    component = store.component("a", b"base")
    found = members(store, [component], set())
    index = json.loads(found["index.json"])
    assert index["manifests"][0]["digest"] == component["manifest_digest"]
    (entry,) = json.loads(found["manifest.json"])
    assert entry["RepoTags"] is None, "a name comes only after the proof"
    assert found[entry["Config"]] == b"config a"
    assert found[entry["Layers"][0]] == b"base"
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_layers_on_a_known_chain_stay_at_home(store: Store) -> None:
    component = store.component("a", b"base", b"new")
    chains = archive.known_chains([["diff base", "diff old"]])
    found = members(store, [component], chains)
    assert archive.blob_path(component["layers"][0]["digest"]) not in found
    assert archive.blob_path(component["layers"][1]["digest"]) in found
    assert archive.bytes_to_send([component], chains) == 3


def test_a_layer_counts_only_in_its_place(store: Store) -> None:
    """The engine knows layers by what lies under them: the same files on another base are new."""
    component = store.component("a", b"other", b"base")
    chains = archive.known_chains([["diff base"]])
    assert archive.layers_to_send(component, chains) == [
        layer["digest"] for layer in component["layers"]
    ]


COMPONENT = {
    "version": "17.6-0+deb13u1",
    "repository": "airlift/postgres",
    "manifest_digest": "sha256:m",
    "config_digest": "sha256:c",
    "diff_ids": ["sha256:d"],
}


def test_identity_depends_on_the_image_store() -> None:
    assert engine.expected_id(COMPONENT, "overlay2") == "sha256:c"
    assert engine.expected_id(COMPONENT, "containerd") == "sha256:m"


def test_a_tag_is_a_legal_name() -> None:
    assert engine.tag(COMPONENT) == "airlift/postgres:17.6-0-deb13u1"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "is not there"),
        ({"Id": "sha256:x", "RootFS": {"Layers": ["sha256:d"]}}, "its id is sha256:x"),
        ({"Id": "sha256:c", "RootFS": {"Layers": ["sha256:e"]}}, "unpacked layers"),
        ({"Id": "sha256:c", "RootFS": {}}, "unpacked layers"),
    ],
)
def test_another_image_is_noticed(image: dict[str, Any] | None, words: str) -> None:
    assert words in str(engine.difference(COMPONENT, image, "sha256:c"))


def test_the_right_image_is_accepted() -> None:
    image = {"Id": "sha256:c", "RootFS": {"Layers": ["sha256:d"]}}
    assert engine.difference(COMPONENT, image, "sha256:c") is None


class FakeConnection:
    """As much of the SSH connection plugin as a client needs."""

    host = "10.0.0.1"
    transport = "ssh"
    become = None

    def __init__(self, program: str, password: str | None = None) -> None:
        self.options = {"ssh_args": "-o ControlPersist=5m", "ssh_executable": program}
        self.options["password"] = password or ""

    def get_option(self, name: str) -> str:
        return self.options[name]

    def set_option(self, name: str, value: str) -> None:
        self.options[name] = value

    def _build_command(self, program: str, _kind: str, host: str, command: str) -> list[bytes]:
        parts = [program, *self.options["ssh_args"].split(" -o "), host, command]
        return [part.encode() for part in parts]


def script(tmp_path: Path, text: str) -> str:
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return str(program)


def test_own_options_stand_first_and_do_not_stay() -> None:
    connection = FakeConnection("ssh")
    command = ssh.client(connection, "cat", "ControlPath=none")
    assert " ".join(command).index("ControlPath=none") < " ".join(command).index("ControlPersist")
    assert connection.options["ssh_args"] == "-o ControlPersist=5m"


def test_a_password_is_refused_in_words() -> None:
    with pytest.raises(ssh.StreamError, match="SSH key"):
        ssh.client(FakeConnection("ssh", password="x"), "cat")


def test_a_refused_port_is_told_from_a_lost_connection(tmp_path: Path) -> None:
    said = "Error: remote port forwarding failed for listen port 5479"
    refusing = FakeConnection(script(tmp_path, f"echo '{said}' >&2; exit 255"))
    with pytest.raises(ssh.ForwardingRefusedError), ssh.reverse_tunnel(refusing, 1, 2):
        pass
    lost = FakeConnection(script(tmp_path, "echo 'No route to host' >&2; exit 255"))
    with (
        pytest.raises(ssh.StreamError, match="No route to host"),
        ssh.reverse_tunnel(lost, 1, 2),
    ):
        pass


def test_a_tunnel_ends_with_its_block(tmp_path: Path) -> None:
    done = tmp_path / "done"
    standing = FakeConnection(script(tmp_path, f"trap 'touch {done}' EXIT TERM; cat"))
    with ssh.reverse_tunnel(standing, 1, 2):
        assert not done.exists()
    assert done.exists()


def write_some(sink: archive.Sink) -> None:
    sink.write(b"x" * 65536)


def test_the_far_ends_words_are_kept(tmp_path: Path) -> None:
    refusing = FakeConnection(script(tmp_path, "echo 'no space left on device'; exit 1"))
    with pytest.raises(ssh.StreamError, match="no space left"):
        ssh.stream_to(refusing, "docker load", write_some)


def test_bytes_are_counted(tmp_path: Path) -> None:
    taking = FakeConnection(script(tmp_path, "cat > /dev/null"))
    assert ssh.stream_to(taking, "docker load", write_some) == 65536
