"""A variable of the inventory as its files say it now, and the file that says it.

A run reads the inventory when it starts. What another run wrote since, it would undo.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.manager import VariableManager

_ONLY_A_NAME = re.compile(r"\s*\{\{\s*(\w+)\s*\}\}\s*")
_LONGEST_CHAIN = 5


class Definition(NamedTuple):
    """Where a variable gets its value: the name that it finally has there, and the file."""

    name: str
    path: Path | None
    line: int | None


class Fresh:
    """The inventory, read again."""

    def __init__(self, loader: DataLoader, sources: Sequence[str]) -> None:
        self._loader = DataLoader()
        self._loader.set_basedir(loader.get_basedir())
        self._loader.set_vault_secrets(loader._vault.secrets)
        self._inventory = InventoryManager(loader=self._loader, sources=sources, cache=False)
        self._manager = VariableManager(loader=self._loader, inventory=self._inventory)

    def value(self, host: str, name: str, default: Any) -> Any:
        """Return a variable of a host, worked out; raises Ansible's errors if it cannot be."""
        variables = self._variables(host)
        if name not in variables:
            return default
        return Templar(loader=self._loader, variables=variables).template(variables[name])

    def definition(self, host: str, name: str) -> Definition:
        """Return what to edit to change a variable; no path if it is set nowhere, or not in a file.

        A variable that only repeats another one (`"{{ vault_keys }}"`) is followed to that one.
        """
        variables = self._variables(host)
        for _ in range(_LONGEST_CHAIN):
            value = variables.get(name)
            other = _ONLY_A_NAME.fullmatch(value) if isinstance(value, str) else None
            if other is None or other[1] not in variables:
                break
            name = other[1]
        return Definition(name, *_origin(variables.get(name)))

    def _variables(self, host: str) -> dict[str, Any]:
        found: dict[str, Any] = self._manager.get_vars(
            host=self._inventory.get_host(host), include_hostvars=False
        )
        return found


def _origin(value: Any) -> tuple[Path | None, int | None]:
    from ansible._internal._datatag._tags import Origin  # noqa: PLC0415 - private to Ansible

    origin = Origin.get_tag(value)
    if origin is None or not origin.path or not Path(origin.path).is_file():
        return None, None
    return Path(origin.path), origin.line_num
