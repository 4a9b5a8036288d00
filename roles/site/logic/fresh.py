"""Read a variable's current value from the inventory's files, and the file that sets it.

A run reads the inventory when it starts. Later changes by another run would be undone.
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
    """The definition of a variable: the final name that holds the value, and the file."""

    name: str
    path: Path | None
    line: int | None


class Fresh:
    """The inventory, read again now."""

    def __init__(self, loader: DataLoader, sources: Sequence[str]) -> None:
        self._loader = DataLoader()
        self._loader.set_basedir(loader.get_basedir())
        self._loader.set_vault_secrets(loader._vault.secrets)
        self._inventory = InventoryManager(loader=self._loader, sources=sources, cache=False)
        self._manager = VariableManager(loader=self._loader, inventory=self._inventory)

    def value(self, host: str, name: str, default: Any) -> Any:
        """Return the evaluated variable of a host; raise Ansible's errors if that fails."""
        variables = self._variables(host)
        if name not in variables:
            return default
        return Templar(loader=self._loader, variables=variables).template(variables[name])

    def definition(self, host: str, name: str) -> Definition:
        """Return what to edit to change a variable; no path if no file sets it.

        If a variable only refers to another one (`"{{ vault_keys }}"`), return the other one's.
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
