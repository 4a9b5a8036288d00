"""The table of all parsers of foreign bytes, filled by importing this module."""

from __future__ import annotations

from tests.fuzz import (
    of_builder,
    of_bundle,
    of_clients,
    of_edge,
    of_hosts,
    of_jumphost,
    of_requests,
    of_sources,
    of_trust,
)
from tests.fuzz.parser import PARSERS

__all__ = [
    "EXEMPT",
    "PARSERS",
    "of_builder",
    "of_bundle",
    "of_clients",
    "of_edge",
    "of_hosts",
    "of_jumphost",
    "of_requests",
    "of_sources",
    "of_trust",
]

_OURS = "reads only files of the tree that is built"
_WRITES = "writes the format, reads none"
_ENGINE = "asks the container engine of its own host, whose root it could be"
_DATABASE = "reads what its own statement makes of the site's database"

#: Modules that handle a format but read no foreign bytes, with the reason.
EXEMPT: dict[str, str] = {
    "app/reports/renderer.py": _DATABASE,
    "bundle/builder/about/inventory.py": "reads collections that the lock's hashes brought",
    "bundle/builder/about/migrations.py": _OURS,
    "bundle/builder/about/pip_audit.py": "reads pip-audit's own output; what is none is a reason",
    "bundle/builder/about/sbom.py": "reads what it wrote itself",
    "bundle/builder/about/settings.py": _OURS,
    "bundle/builder/cache.py": "reads what the builder itself left in its cache",
    "bundle/builder/completeness.py": _OURS,
    "bundle/builder/content.py": "reads collections that the lock's hashes brought",
    "bundle/builder/hosts/packages.py": "reads what its own container wrote",
    "bundle/builder/hosts/systems.py": _OURS,
    "bundle/builder/images/recipes.py": _WRITES,
    "bundle/builder/images/engine.py": _ENGINE,
    "bundle/builder/images/layout.py": _ENGINE,
    "bundle/builder/images/lockfile.py": _OURS,
    "bundle/builder/images/relock.py": _OURS,
    "bundle/builder/release.py": _OURS,
    "bundle/builder/verifier_pyz.py": _WRITES,
    "bundle/jumphost/saved_state.py": "reads what the holder of the passphrase has authenticated",
    "roles/backup/module_utils/backup_servers.py": _DATABASE,
    "roles/swap_agent/files/swap_agent/fit.py": "reads what the agent on its own host wrote",
    "roles/swap_agent/files/swap_agent/nginx.py": "reads 16 bytes of a number from its own Nginx",
    "roles/container/action_plugins/containers.py": _OURS,
    "roles/container/module_utils/container_reload.py": "reads the file that it wrote itself",
    "roles/container_engine/library/container_engine.py": _ENGINE,
    "roles/container_engine/module_utils/engine_network.py": _ENGINE,
    "roles/images/delivery/archive.py": _WRITES,
    "roles/images/module_utils/images_state.py": _ENGINE,
    "roles/key/action_plugins/key_change.py": _OURS,
    "roles/key/filter_plugins/key.py": _DATABASE,
    "roles/postgres/library/postgres_cluster.py": "reads the marker that it wrote itself",
    "roles/postgres/library/postgres_database.py": _DATABASE,
    "roles/postgres/module_utils/postgres_accounts.py": _DATABASE,
    "roles/preflight/library/preflight_facts.py": _ENGINE,
    "roles/preflight/module_utils/host_sockets.py": "reads tables of the host's own kernel",
    "roles/preflight/logic/settings.py": _OURS,
    "roles/site/logic/sources.py": _OURS,
    "roles/site/module_utils/engine_socket.py": _ENGINE,
    "roles/site/module_utils/host_addresses.py": "reads what ip says of the host's own kernel",
    "roles/swap/filter_plugins/swap_plan.py": "reads manifests that an import has checked",
    "roles/site/module_utils/engine_client.py": _ENGINE,
}
