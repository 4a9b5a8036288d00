"""The completeness gate: a build stops if a site could need what the bundle lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bundle.builder import completeness, content
from bundle.builder.hosts import systems
from bundle.builder.images import lockfile
from bundle.errors import AirliftError, Kind
from tests.unit.bundle.bundlekit import TREE

PLUGINS = "content/collections/ansible_collections/community/docker/plugins"


class Members:
    """Members of a bundle as a build collects them, without the network."""

    def __init__(self, folder: Path) -> None:
        lock = lockfile.load(TREE / "bundle" / "images.lock.yml")
        self.folder = folder
        self.files = content.collect(TREE)
        self.absent = {name for name, pin in lock.images.items() if pin.absent}
        self.components = set(lock.images) - self.absent
        for system in systems.load():
            index = "".join(f"Package: {name}\nVersion: 1\n\n" for name in system.packages)
            self.put(f"packages/{system.folder}/Packages", index)
        text = (TREE / "requirements" / "controller.txt").read_text()
        for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE):
            self.put(f"wheels/{name.replace('-', '_')}-{version}-py3-none-any.whl", "")

    def put(self, member: str, text: str) -> None:
        file = self.folder / member
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.files[member] = file

    def drop(self, start: str) -> None:
        gone = [member for member in self.files if member.startswith(start)]
        assert gone
        for member in gone:
            del self.files[member]

    def check(self, tree: Path = TREE) -> None:
        completeness.check(tree, self.files, self.components, self.absent)

    def lacks(self, tree: Path = TREE) -> str:
        with pytest.raises(AirliftError) as caught:
            self.check(tree)
        assert caught.value.kind is Kind.BUILD_INPUT
        assert "\n" not in caught.value.what
        return caught.value.what.removeprefix("the bundle would be incomplete: ")


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return Members(tmp_path / "members")


def test_the_product_is_complete(members: Members) -> None:
    members.check()


def test_every_image_of_the_product_is_asked_for(members: Members) -> None:
    """So no image of the lock can be forgotten."""
    for name in sorted(members.components | members.absent):
        kept = members.components, members.absent
        members.components, members.absent = kept[0] - {name}, kept[1] - {name}
        said = members.lacks()
        assert re.fullmatch(rf"no image of {name}, which roles/\S+ needs", said), said
        members.components, members.absent = kept


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("content/roles/redis/", "no role redis, which playbooks/install.yml uses"),
        ("content/playbooks/callback", "no callback airlift, which ansible.cfg names"),
        (f"{PLUGINS}/modules/docker_image_info.py", "no plugin community.docker.docker_image_info"),
        (
            "packages/debian-13/Packages",
            "no packages for debian-13, which bundle/systems.yml names",
        ),
        ("wheels/cryptography-", "for Python 3.13"),
    ],
)
def test_what_is_left_out_is_named(members: Members, start: str, words: str) -> None:
    members.drop(start)
    assert words in members.lacks()


def test_a_package_that_the_repository_lacks_is_named(members: Members) -> None:
    index = members.files["packages/debian-13/Packages"]
    index.write_text(index.read_text().replace("Package: nftables\n", "Package: nft\n"))
    said = members.lacks()
    assert said == "no package nftables for debian-13, which bundle/systems.yml names"


def test_a_system_may_be_absent_if_the_manifest_says_so(members: Members) -> None:
    members.drop("packages/debian-12/")
    assert members.lacks() == "no packages for debian-12, which bundle/systems.yml names"
    members.absent.add("packages-debian-12")
    members.check()


def test_a_wheel_for_some_pythons_only_is_not_enough(members: Members) -> None:
    members.drop("wheels/PyYAML" if "PyYAML" in str(members.files) else "wheels/pyyaml")
    text = (TREE / "requirements" / "controller.txt").read_text()
    version = re.findall(r"(?im)^pyyaml==([\w.]+)", text)[0]
    for tag in ("cp311-cp311", "cp312-cp312"):
        members.put(f"wheels/PyYAML-{version}-{tag}-manylinux_2_17_x86_64.whl", "")
    assert members.lacks().lower() == f"no wheel of pyyaml {version} for python 3.13"


def test_a_stable_abi_serves_later_pythons(members: Members) -> None:
    members.drop("wheels/cryptography-")
    text = (TREE / "requirements" / "controller.txt").read_text()
    version = re.findall(r"(?m)^cryptography==([\w.]+)", text)[0]
    members.put(f"wheels/cryptography-{version}-cp311-abi3-manylinux_2_34_x86_64.whl", "")
    members.check()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "playbooks/x.yml",
            "- tasks: [{community.general.ufw: {state: enabled}}]",
            "no plugin community.general.ufw, which playbooks/x.yml uses",
        ),
        (
            "roles/x/vars/main.yml",
            "x: \"{{ [1] | community.general.json_query('a') }}\"",
            "no plugin community.general.json_query, which roles/x/vars/main.yml uses",
        ),
        (
            "roles/x/tasks/main.yml",
            "- {name: X, y: \"{{ site_images['loki'] }}\"}",
            "no image of loki, which roles/x/tasks/main.yml needs",
        ),
        (
            "inventories/example/group_vars/all/more.yml",
            "site_components: {vector: [all]}",
            "no image of vector, which inventories/example/group_vars/all/more.yml needs",
        ),
        (
            "roles/x/meta/main.yml",
            "dependencies: [{role: y}]",
            "no role y, which roles/x/meta/main.yml uses",
        ),
        (
            "roles/site/defaults/main.yml",
            "site_systems: [{id: opensuse, version: '15', engine: [docker]}]",
            "no packages for opensuse-15, which roles/site/defaults/main.yml names",
        ),
    ],
)
def test_whoever_asks_is_heard(
    members: Members, tmp_path: Path, name: str, text: str, words: str
) -> None:
    tree = tmp_path / "tree"
    (tree / name).parent.mkdir(parents=True)
    (tree / name).write_text(text)
    assert members.lacks(tree) == words


def test_a_file_that_is_not_yaml_is_named(members: Members, tmp_path: Path) -> None:
    file = tmp_path / "playbooks" / "x.yml"
    file.parent.mkdir()
    file.write_text("a: [")
    with pytest.raises(AirliftError, match=r"playbooks/x\.yml is not YAML: .* line 2"):
        members.check(tmp_path)
