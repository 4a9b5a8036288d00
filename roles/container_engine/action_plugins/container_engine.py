"""Set up a host's engine; copy the release's packages to it only if it needs one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

STAGE = "/var/cache/airlift/packages"


def versions_of(index: str) -> dict[str, str]:
    """Return package: version of the index of a repository, which has one version of each."""
    found: dict[str, str] = {}
    name = ""
    for line in index.splitlines():
        key, _, value = line.partition(": ")
        if key == "Package":
            name = value.strip()
        elif key == "Version" and name:
            found[name] = value.strip()
    return found


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module on the host, and again after copying packages if some are missing."""

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Compare and bring about, or copy first."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        packages = Path(arguments.pop("packages_dir"))
        arguments["repositories"] = sorted(
            folder.parent.name for folder in packages.glob("*/Packages")
        )
        if arguments.get("update"):
            arguments["offered"] = {
                name: versions_of((packages / name / "Packages").read_text(encoding="utf-8"))
                for name in arguments["repositories"]
            }
        arguments["stage_owner"] = self._get_remote_user()
        result = self._module(arguments, task_vars)
        if not result.get("staged"):
            return result
        repository = packages / result["staged"]
        for path in sorted(repository.rglob("*")):
            name = path.relative_to(repository)
            if name.name == "Packages" or path.suffix in (".deb", ".rpm") or name.parts[1:]:
                self._connection.put_file(str(path), f"{STAGE}/{name}")
        return self._module({**arguments, "stage_owner": ""}, task_vars)

    def _module(self, arguments: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="container_engine", module_args=arguments, task_vars=task_vars
        )
        return result
