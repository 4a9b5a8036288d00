"""Check the inventory's variables against the roles, on the controller, before any connection."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import become_loader, connection_loader, shell_loader
from ansible.utils.vars import load_extra_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.preflight.logic import settings as logic  # noqa: E402
from roles.site.logic import sources  # noqa: E402

# The plugins that Ansible uses to reach hosts; an inventory may set their variables.
PLUGINS = (
    ("connection", connection_loader, ("ssh", "local")),
    ("become", become_loader, ("sudo", "su")),
    ("shell", shell_loader, ("sh",)),
)


def ansible_variables() -> set[str]:
    """Return the names of the variables that Ansible's own plugins read."""
    names = {"ansible_connection", "ansible_python_interpreter", "ansible_shell_type"}
    for variables in constants.MAGIC_VARIABLE_MAPPING.values():
        names.update(variables)
    for kind, loader, plugins in PLUGINS:
        for plugin in plugins:
            # Loading a plugin registers its settings.
            loader.get(plugin, class_only=True)
            settings = constants.config.get_configuration_definitions(kind, plugin)
            for definition in settings.values():
                names.update(entry["name"] for entry in definition.get("vars") or [])
    return names


def where(value: Any, fallback: str) -> str:
    """Return the file and line of a value, as far as Ansible knows them."""
    try:
        from ansible._internal._datatag._tags import Origin  # noqa: PLC0415 - private, so optional

        origin = Origin.get_tag(value)
    except ImportError:
        return fallback
    if origin is None or not origin.path:
        return fallback
    line = f":{origin.line_num}" if origin.line_num else ""
    return f"{Path(origin.path).name}{line}"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs once, for all hosts; returns rows for the report and never fails by itself."""

    _VALID_ARGS = frozenset(("roles", "role_zones", "zones", "own_variables"))
    _requires_connection = False
    _supports_check_mode = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Check names, then values."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        arguments = self._task.args
        roles = Path(arguments["roles"])
        options = logic.known_options(roles)
        hosts = list(self._vars["ansible_play_hosts_all"])
        # Each access to hostvars computes all variables of that host again.
        hostvars = {host: self._vars["hostvars"][host] for host in hosts}
        found = list(self._settings())
        rows = logic.unknown_settings(
            found,
            options,
            [*ansible_variables(), *(arguments.get("own_variables") or [])],
            logic.renamed_settings(roles),
        )

        def lookup(host: str, name: str) -> Any:
            return hostvars[host][name]

        wanted = {
            role: [host for host in hosts if self._in_zones(host, zones, arguments["zones"])]
            for role, zones in arguments["role_zones"].items()
        }
        names = {setting.name: setting.where for setting in found}
        values = []
        for host in hosts:
            there = {name: place for name, place in names.items() if name in hostvars[host]}
            values += logic.wrong_values(options, there, host, lookup, self._validate)
        broken = {one["fact"].split()[0] for one in values}
        rows += logic.missing_settings(
            {name: option for name, option in options.items() if name not in broken},
            wanted,
            lookup,
            lambda host, name: name in hostvars[host],
        )
        rows += logic.same_for_all(values, len(hosts))
        if not broken & set(sources.SETTINGS):
            unset = sources.defaults(roles)
            of_apps = sources.of_inventory((hostvars[host] for host in wanted["app"]), unset)
            rows += logic.unlisted_sources(sources.of_hosts(of_apps))
        return {"changed": False, "rows": rows}

    def _in_zones(self, host: str, zones: Sequence[str], groups: Mapping[str, str]) -> bool:
        """Return whether a host is in one of the zones."""
        if "all" in zones:
            return True
        members = self._vars["groups"]
        return any(host in members.get(groups.get(zone, zone), []) for zone in zones)

    def _settings(self) -> Iterator[logic.Setting]:
        """Return the variables of the inventory and the command line, and where each is set."""
        sources = self._vars["ansible_inventory_sources"]
        inventory = InventoryManager(loader=self._loader, sources=sources, cache=False)
        entities = [
            *((group.name, group) for group in inventory.groups.values()),
            *((host.name, host) for host in inventory.get_hosts(ignore_limits=True)),
        ]
        for name, entity in entities:
            for stage in (
                entity.vars,
                get_vars_from_inventory_sources(self._loader, sources, [entity], "all"),
            ):
                for key, value in stage.items():
                    # Ansible puts these on every host of an inventory.
                    if key not in ("inventory_file", "inventory_dir"):
                        yield logic.Setting(str(key), where(value, f"the inventory, at {name}"))
        for key, value in load_extra_vars(self._loader).items():
            yield logic.Setting(str(key), where(value, "--extra-vars"))

    @staticmethod
    def _validate(spec: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
        """Return the messages of Ansible's own validator."""
        result = ArgumentSpecValidator(dict(spec)).validate(
            dict(values), validate_role_argument_spec=True
        )
        return [str(message) for message in result.error_messages]
