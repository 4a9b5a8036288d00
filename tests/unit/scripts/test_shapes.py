"""The lab's shapes: machines and inventory agree, and every zone has hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import shapes
from scripts.journey import EDGE, INVENTORY, SITE, Journey
from scripts.lab import ROOT, Done, Lab

LAB = yaml.safe_load((ROOT / "molecule/lab/vars.yml").read_text())
COUNTS = {"one": 1, "five": 5, "two-edges": 6, "four-apps": 7, "eight": 8}


def places(inventory: dict[str, Any]) -> dict[str, str]:
    """Return the address of each host of an inventory."""
    return {
        host: settings["ansible_host"]
        for zone in ("dmz", "app", "data", "monitor")
        for host, settings in inventory[zone]["hosts"].items()
        if settings
    }


def test_every_shape_is_known_here() -> None:
    assert shapes.names() == sorted(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_a_shape_has_its_hosts_with_addresses_of_the_lab(name: str) -> None:
    shape = shapes.load(name)
    made = shape.inventory()
    assert all(made[zone]["hosts"] for zone in ("dmz", "app", "data", "monitor"))
    found = places(made)
    assert len(set(found.values())) == len(found) == COUNTS[name]
    for machine in shape.machines():
        if machine["kind"] == "host":
            ((network, octet),) = machine["addresses"].items()
            third = LAB["lab_networks"][network]
            assert found[machine["name"]] == f"{LAB['lab_base']}.{third}.{octet}"
    # The lab's clients reach the edge at this address.
    assert f"https://{found['edge-1']}" == EDGE


def test_the_default_shape_is_the_labs_inventory() -> None:
    assert shapes.load().inventory() == yaml.safe_load((INVENTORY / "hosts.yml").read_text())


def test_no_shape_repeats_a_setting_of_the_lab_that_is_the_same() -> None:
    shared = yaml.safe_load((INVENTORY / "group_vars/all/main.yml").read_text())
    for name in COUNTS:
        for setting, value in shapes.load(name).settings.items():
            assert shared.get(setting) != value, (name, setting)


@pytest.mark.slow
def test_the_lab_raises_the_machines_of_a_shape(tmp_path: Path) -> None:
    """molecule/lab/vars.yml derives the same machines from each file as this program."""
    tasks = [
        {
            "ansible.builtin.copy": {
                "content": "{{ lab_hosts | to_json }}",
                "dest": f"{tmp_path}/{name}",
                "mode": "0600",
            },
            "vars": {"lab_shape": name},
        }
        for name in COUNTS
    ]
    play: dict[str, Any] = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": tasks,
    }
    play["vars_files"] = [str(ROOT / "molecule/lab/vars.yml")]
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    words = ["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml")]
    words += ["-e", f"ansible_python_interpreter={sys.executable}"]
    done = subprocess.run(
        [*words, "-e", f"lab_root={ROOT}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for name in COUNTS:
        made = json.loads((tmp_path / name).read_text())
        assert made == shapes.load(name).machines()


def test_a_shape_before_a_host_was_added() -> None:
    before = shapes.load("two-edges").without("edge-2")
    assert before.hosts == shapes.load().hosts
    assert before.settings == {}


def test_an_unknown_shape_is_refused_with_the_known_ones() -> None:
    with pytest.raises(shapes.ShapeError, match=r"no shape 'six'; name one of: .*four-apps, one"):
        shapes.load("six")


def placed(monkeypatch: pytest.MonkeyPatch, shape: shapes.Shape) -> dict[str, str]:
    """Return the files that a journey writes to the site's folder on the jump host, by name."""
    found: dict[str, str] = {}

    def ssh(_lab: Lab, script: str, *, stdin: str = "", **_: object) -> Done:
        if "dirname" in script:
            found[script.rpartition(f"{SITE}/")[2]] = stdin
        return Done(0, "")

    monkeypatch.setattr(Lab, "ssh", ssh)
    Journey(shape=shape).place_site()
    return found


def test_the_lab_and_the_inventory_of_a_journey_have_its_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = shapes.load("two-edges")
    assert Journey(shape=shape).lab.shape == "two-edges"
    files = placed(monkeypatch, shape)
    assert yaml.safe_load(files["hosts.yml"]) == shape.inventory()
    assert yaml.safe_load(files["group_vars/all/shape.yml"]) == shape.settings
    shared = (INVENTORY / "group_vars/all/main.yml").read_text()
    assert files["group_vars/all/main.yml"] == shared
    # Ansible reads settings in the order of file names, so the shape's come later and win.
    assert sorted(files)[1:3] == ["group_vars/all/shape.yml", "hosts.yml"]


def test_the_default_site_is_the_labs_own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    files = placed(monkeypatch, shapes.load())
    assert sorted(files) == ["group_vars/all/main.yml", "hosts.yml"]
    assert files["hosts.yml"] == (INVENTORY / "hosts.yml").read_text()


def test_a_site_before_its_second_edge_has_the_machines_of_both() -> None:
    before = Journey(shape=shapes.load("two-edges").without("edge-2"))
    assert before.lab.shape == "two-edges"
    assert before.hosts() == shapes.load().hosts
