"""The archive for hosts without port forwarding, and the rule for an image's identity."""

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from roles.images.delivery import archive
from tests.unit.roles.conftest import plugin

engine = plugin("images/library/images_engine.py")
identity = plugin("site/module_utils/image_identity.py")


class Store:
    """Blobs in a folder, and components that use them."""

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
            "unpacked_size": 3 * sum(map(len, layers)),
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
    assert entry["RepoTags"] is None, "a name is given only after the check"
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


def test_the_disk_that_images_need_counts_a_shared_layer_once(store: Store) -> None:
    one, two = store.component("one", b"base", b"one"), store.component("two", b"base", b"second")
    both = [one, two]
    assert archive.bytes_to_send(both, set()) == len(b"base" + b"one" + b"second")
    assert archive.disk_needed(both, set(), keeps_packed=False) == 3 * 13
    assert archive.disk_needed(both, set(), keeps_packed=True) == 4 * 13
    known = archive.known_chains([one["diff_ids"]])
    assert archive.disk_needed(both, known, keeps_packed=False) == 3 * len(b"second")


def test_a_layer_counts_only_in_its_place(store: Store) -> None:
    """The engine identifies layers by those below them: the same files on another base are new."""
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
    assert identity.image_id(COMPONENT, "overlay2") == "sha256:c"
    assert identity.image_id(COMPONENT, "containerd") == "sha256:m"


def test_a_tag_is_a_legal_name() -> None:
    assert engine.tag(COMPONENT) == "airlift/postgres:17.6-0-deb13u1"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "does not exist"),
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


# ---------------------------------------------------------------- images that no release needs
OURS = {"airlift/app", "airlift/postgres"}


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        (["airlift/app:1.0"], ["airlift/app:1.0"]),
        (["airlift/app@sha256:ab"], ["airlift/app@sha256:ab"]),
        (["127.0.0.1:5479/airlift/app@sha256:ab"], ["127.0.0.1:5479/airlift/app@sha256:ab"]),
        (["127.0.0.1:5479/airlift/app:1.0"], ["127.0.0.1:5479/airlift/app:1.0"]),
        (["airlift/app"], ["airlift/app"]),
        (["airlift/app:1.0", "other/app:1.0"], ["airlift/app:1.0"]),
        (["airlift/app-test:1.0"], []),
        (["airlift/app/more:1.0"], []),
        (["airlift/ap:1.0", "app:1.0", "airlift:app"], []),
        (["registry.example/airlift/app:1.0", "10.0.0.1:5479/airlift/app:1.0"], []),
        (["127.0.0.1/airlift/app:1.0", "127.0.0.1:x/airlift/app:1.0"], []),
        (["x127.0.0.1:5479/airlift/app:1.0"], []),
        (["<none>:<none>", "<none>@<none>"], []),
        ([], []),
    ],
)
def test_only_our_own_names_are_found(names: list[str], ours: list[str]) -> None:
    tags = [name for name in names if "@" not in name]
    digests = [name for name in names if "@" in name]
    assert engine.names_of({"RepoTags": tags, "RepoDigests": digests}, OURS) == ours


def test_an_image_may_have_no_names_at_all() -> None:
    assert engine.names_of({"RepoTags": None, "RepoDigests": None}, OURS) == []
    assert engine.names_of({}, OURS) == []


# A stand-in for docker with the rules that prune needs: a name is removed as long as others are
# left; the last one stays while a container uses the image; a repository's digests are removed
# with its last tag.
FAKE = r"""
import json, pathlib, re, sys
state = pathlib.Path(__file__).with_name("state.json")
images = json.loads(state.read_text())
with state.with_name("calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\n")
verb, names = sys.argv[1:3], sys.argv[3:]
if verb[0] == "info":
    root = "/var/lib/docker"
    told = {"Driver": "overlay2", "DockerRootDir": root, "DriverStatus": None}
    print(json.dumps({"ServerVersion": "26.1.5", **told}))
elif verb[0] == "ps":
    *options, ancestor = sys.argv[2:]
    assert options == ["--all", "--quiet", "--filter"], options
    for image in images:
        if ancestor == "ancestor=" + image["Id"] and image["used"]:
            print("0123456789ab")
elif verb == ["image", "ls"]:
    assert names == ["--quiet", "--no-trunc"], names
    for image in images:
        for _ in image["RepoTags"] or [""]:
            print(image["Id"])
elif verb == ["image", "inspect"]:
    assert names, "docker image inspect requires at least 1 argument"
    print(json.dumps([one for one in images if one["Id"] in names]))
elif verb == ["image", "rm"]:
    (name,) = names
    for image in images:
        if name in image["RepoTags"] + image["RepoDigests"]:
            break
    else:
        sys.exit(f"No such image: {name}")
    tags, digests = image["RepoTags"], image["RepoDigests"]
    where = lambda one: re.split("@|:[^:/]*$", one)[0]
    single = len(tags + digests) == 1 or (
        len(tags) == len(digests) == 1 and where(tags[0]) == where(digests[0])
    )
    if single and image["used"]:
        sys.exit("conflict: a container is using its referenced image")
    (tags if name in tags else digests).remove(name)
    if "@" not in name and not any(where(one) == where(name) for one in tags):
        digests[:] = [one for one in digests if where(one) != where(name)]
    if not tags + digests:
        images.remove(image)
    state.write_text(json.dumps(images))
else:
    sys.exit("unknown command")
"""


class Engine:
    """A fake engine of a host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "docker"
        program.write_text(f"#!{sys.executable} -IS\n{FAKE}")
        program.chmod(0o755)
        self.images: list[dict[str, Any]] = []
        self.save()

    def save(self) -> None:
        (self.folder / "state.json").write_text(json.dumps(self.images))

    def add(self, ident: str, *names: str, used: bool = False) -> None:
        tags = [name for name in names if "@" not in name]
        digests = [name for name in names if "@" in name]
        image = {"Id": ident, "RepoTags": tags, "RepoDigests": digests, "used": used}
        self.images.append(image)
        self.save()

    def left(self) -> dict[str, list[str]]:
        found = json.loads((self.folder / "state.json").read_text())
        return {image["Id"]: image["RepoTags"] + image["RepoDigests"] for image in found}

    def calls(self, verb: str) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if line.split()[:2] == ["image", verb]]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return Engine(tmp_path)


COMPONENTS = {name: {"repository": name} for name in OURS}


def test_what_is_not_kept_goes_and_nothing_else(host: Engine) -> None:
    pulled = "127.0.0.1:5479/airlift/app@sha256:"
    host.add("sha256:a1", "airlift/app:1.0", pulled + "1")
    host.add("sha256:a2", "airlift/app:1.1", pulled + "2")
    host.add("sha256:a3", "airlift/app:1.2")
    host.add("sha256:p1", "airlift/postgres:17")
    host.add("sha256:x1", "airlift/other:1", "someone/else:1")
    host.add("sha256:x2")
    kept = {"sha256:a2", "sha256:a3", "sha256:not-here"}
    said = engine.prune(COMPONENTS, kept, check=False)
    assert set(host.left()) == {"sha256:a2", "sha256:a3", "sha256:x1", "sha256:x2"}
    assert host.left()["sha256:a2"] == ["airlift/app:1.1", pulled + "2"]
    assert said == {"changed": True, "removed": ["airlift/app:1.0", "airlift/postgres:17"]}
    assert not any("--force" in line or "-f " in line for line in host.calls("rm"))
    assert engine.prune(COMPONENTS, kept, check=False) == {"changed": False, "removed": []}


def test_an_image_that_a_container_uses_stays(host: Engine) -> None:
    host.add("sha256:p0", "airlift/postgres:16", used=True)
    host.add("sha256:p1", "airlift/postgres:17")
    said = engine.prune(COMPONENTS, {"sha256:p1"}, check=False)
    assert said == {"changed": False, "removed": []}
    assert host.left()["sha256:p0"] == ["airlift/postgres:16"]


def test_an_image_of_ours_that_has_a_foreign_name_only_loses_ours(host: Engine) -> None:
    host.add("sha256:a1", "airlift/app:1.0", "mine/copy:1")
    assert engine.prune(COMPONENTS, set(), check=False)["removed"] == [], "the image is still there"
    assert host.left() == {"sha256:a1": ["mine/copy:1"]}


def test_an_image_with_two_tags_is_looked_at_once(host: Engine) -> None:
    host.add("sha256:a1", "airlift/app:1.0", "airlift/app:incoming")
    assert engine.prune(COMPONENTS, set(), check=False)["removed"] == ["airlift/app:1.0"]
    assert host.left() == {}
    # One call reads its names, and one checks that it is gone.
    assert host.calls("inspect") == ["image inspect sha256:a1"] * 2
    assert host.calls("rm") == ["image rm airlift/app:1.0", "image rm airlift/app:incoming"]


def test_an_engine_without_images(host: Engine) -> None:
    assert engine.prune(COMPONENTS, set(), check=False) == {"changed": False, "removed": []}
    assert host.calls("inspect") == []


def test_the_state_of_the_module_prunes(host: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    host.add("sha256:a1", "airlift/app:1.0")
    host.add("sha256:a2", "airlift/app:1.1")
    given = {"state": "prune", "components": COMPONENTS, "kept": ["sha256:a2"]}
    with patch_module_args(given), pytest.raises(SystemExit):
        engine.answer(engine.run, engine.OPTIONS)
    said = json.loads(capsys.readouterr().out)
    assert (said["changed"], said["removed"]) == (True, ["airlift/app:1.0"])
    assert set(host.left()) == {"sha256:a2"}


def test_an_image_that_a_container_uses_keeps_its_names(host: Engine) -> None:
    """After a pull it has the tag and the registry's digest; the tag shows that it is verified."""
    names = ["airlift/postgres:16", "127.0.0.1:5479/airlift/postgres@sha256:p"]
    host.add("sha256:p0", *names, used=True)
    engine.prune(COMPONENTS, set(), check=False)
    assert host.left() == {"sha256:p0": names}
    assert host.calls("rm") == []


def test_an_image_with_a_digest_of_its_own_repository_counts_as_removed(host: Engine) -> None:
    """The containerd store lists all images like this."""
    host.add("sha256:a1", "airlift/app:1.0", "airlift/app@sha256:a1")
    said = engine.prune(COMPONENTS, set(), check=False)
    assert host.left() == {}
    assert said == {"changed": True, "removed": ["airlift/app:1.0"]}


def test_nothing_is_removed_in_check_mode(host: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    host.add("sha256:a1", "airlift/app:1.0")
    given = {"state": "prune", "components": COMPONENTS, "_ansible_check_mode": True}
    with patch_module_args(given), pytest.raises(SystemExit):
        engine.answer(engine.run, engine.OPTIONS)
    said = json.loads(capsys.readouterr().out)
    assert (said["changed"], said["removed"]) == (True, ["airlift/app:1.0"])
    assert set(host.left()) == {"sha256:a1"}
    assert host.calls("rm") == []
