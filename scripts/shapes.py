"""The shapes of the lab's site: how many hosts, in which zones, at which addresses.

A shape is a file of ``molecule/lab/shapes``. ``molecule/lab/vars.yml`` makes the machines of it,
and this module the site's inventory. Settings that all shapes share stay in ``inventories/lab``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "molecule" / "lab" / "shapes"
#: The shape of inventories/lab/hosts.yml.
DEFAULT = "five"
_LAB: dict[str, Any] = yaml.safe_load((ROOT / "molecule/lab/vars.yml").read_text())
#: The machines around every site: network: last octet of the address.
AROUND: dict[str, dict[str, int]] = {one["name"]: one["addresses"] for one in _LAB["lab_around"]}


class ShapeError(Exception):
    """No file describes a shape with this name."""


@dataclass(frozen=True)
class Shape:
    """One shape.

    Attributes:
        name: Name of its file.
        zones: Zone: {host: last octet of its address}.
        host_settings: Settings of single hosts.
        settings: Settings of the site besides those of ``inventories/lab``.
    """

    name: str
    zones: Mapping[str, Mapping[str, int]]
    host_settings: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]

    @property
    def homes(self) -> dict[str, dict[str, int]]:
        """Return the network and last octet of each host: those of its first zone."""
        found: dict[str, dict[str, int]] = {}
        for zone, hosts in self.zones.items():
            for host, octet in hosts.items():
                found.setdefault(host, {zone: octet})
        return found

    @property
    def hosts(self) -> list[str]:
        """Return the hosts, each once."""
        return list(self.homes)

    def address(self, machine: str) -> str:
        """Return the main address of a host, or of a machine around the site."""
        network, octet = next(iter((AROUND | self.homes)[machine].items()))
        return f"{_LAB['lab_base']}.{_LAB['lab_networks'][network]}.{octet}"

    def machines(self) -> list[dict[str, Any]]:
        """Return the lab's machines as ``lab_hosts`` has them."""
        site = [{"name": host, "kind": "host", "addresses": it} for host, it in self.homes.items()]
        return [*_LAB["lab_around"], *site]

    def inventory(self) -> dict[str, Any]:
        """Return the site's hosts.yml."""
        made: dict[str, Any] = {}
        known: set[str] = set()
        for zone, hosts in self.zones.items():
            made[zone] = {"hosts": {}}
            for host in hosts:
                # A host of several zones has its settings in the first one.
                own = {"ansible_host": self.address(host), **self.host_settings.get(host, {})}
                made[zone]["hosts"][host] = None if host in known else own
                known.add(host)
        return made | {"all": {"vars": {"ansible_user": "airlift-admin"}}}

    def without(self, host: str) -> Shape:
        """Return the shape before a host was added, without the settings that need it."""
        zones = {
            zone: {name: octet for name, octet in hosts.items() if name != host}
            for zone, hosts in self.zones.items()
        }
        return replace(self, zones=zones, settings={})


def names() -> list[str]:
    """Return the names of all shapes."""
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def load(name: str = DEFAULT) -> Shape:
    """Read a shape.

    Raises:
        ShapeError: there is no such file; says which there are.
    """
    path = FOLDER / f"{name}.yml"
    if not path.is_file():
        message = f"the lab has no shape {name!r}; name one of: {', '.join(names())}, or add {path}"
        raise ShapeError(message)
    found = yaml.safe_load(path.read_text())
    return Shape(name, found["zones"], found["hosts"], found["settings"])
