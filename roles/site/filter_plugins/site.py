"""Filters that compute facts about a site from its inventory and release."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import context

RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.site.logic import folder, sources  # noqa: E402
from roles.site.module_utils.image_identity import image_ids, image_store  # noqa: E402


def site_host_zones(zones: Mapping[str, str], group_names: Sequence[str]) -> list[str]:
    """Return the zones whose inventory group the host is in."""
    return [zone for zone, group in zones.items() if group in group_names]


def _address(hostvars: Mapping[str, Any], host: str) -> str:
    """Return a host's address in the site: site_address, else the address of the SSH connection."""
    variables = hostvars[host]
    return str(variables.get("site_address") or variables.get("ansible_host") or host)


def site_zone_addresses(
    zones: Mapping[str, str],
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Any],
) -> dict[str, list[str]]:
    """Return for each zone the addresses of its hosts, in a stable order."""
    return {
        zone: sorted({_address(hostvars, host) for host in groups.get(group, [])})
        for zone, group in zones.items()
    }


def site_host_addresses(
    zones: Mapping[str, str],
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Any],
) -> dict[str, str]:
    """Return inventory name: address for every host in a zone."""
    hosts = {host for group in zones.values() for host in groups.get(group, [])}
    return {host: _address(hostvars, host) for host in sorted(hosts)}


def site_components_of(components: Mapping[str, Sequence[str]], zones: Sequence[str]) -> list[str]:
    """Return the components whose images a host in these zones needs."""
    return [
        name
        for name, wanted in components.items()
        if zones and ("all" in wanted or set(wanted) & set(zones))
    ]


def site_command(inventory: str) -> str:
    """Return the command that runs a playbook of this site, up to the playbook's name.

    It has the vault options of this run, so that it can be copied unchanged.
    """
    words = ["./venv/bin/ansible-playbook", "-i", inventory, *_vault_options()]
    return f"{shlex.join(words)} playbooks/"


def _vault_options() -> list[str]:
    given = context.CLIARGS
    words = [f"--vault-id={one}" for one in given.get("vault_ids") or ()]
    words += [f"--vault-password-file={one}" for one in given.get("vault_password_files") or ()]
    return words + (["--ask-vault-pass"] if given.get("ask_vault_pass") else [])


def site_vault_command(source: str, name: str, target: str) -> str:
    """Return the command that encrypts a file's one line as a setting, in a file of its own.

    The secret goes through a pipe: it is no argument, and no other file has it meanwhile.
    """
    tool = ["./venv/bin/ansible-vault", "encrypt_string", *_vault_options()[:1]]
    words = shlex.join([*tool, "--stdin-name", name])
    return f"tr -d '\\n' < {shlex.quote(source)} | {words} > {shlex.quote(target)}"


def site_source_defaults(roles: str) -> dict[str, Any]:
    """Return the default settings of sources."""
    return sources.defaults(Path(roles))


def site_sources(hosts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the clients of each source (access), sources without an entry, and their setting.

    Each host gives its `site_source_settings`.
    """
    found = sources.of_hosts(hosts)
    access = {name: sources.people(clients) for name, clients in found.access.items()}
    return {"access": access, "unlisted": found.unlisted, "setting": found.setting}


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {
            "site_host_zones": site_host_zones,
            "site_zone_addresses": site_zone_addresses,
            "site_host_addresses": site_host_addresses,
            "site_image_store": image_store,
            "site_image_ids": image_ids,
            "site_command": site_command,
            "site_folder": folder.look,
            "site_vault_command": site_vault_command,
            "site_components_of": site_components_of,
            "site_source_defaults": site_source_defaults,
            "site_sources": site_sources,
        }
