"""Copy the release's packages to a host, if and only if it needs one of them, and install."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# Not /tmp: it is often a small file system in memory.
STAGE = "/var/cache/airlift/packages"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Run the module on the host around a plain copy; its package manager hashes."""

    _VALID_ARGS = frozenset(("packages", "repository", "format"))

    def _module(self, task_vars: dict[str, Any], **changed: Any) -> dict[str, Any]:
        """Run the module of the same name on the host."""
        arguments = {**self._task.args, "repository": STAGE, **changed}
        result: dict[str, Any] = self._execute_module(
            module_name="offline_packages", module_args=arguments, task_vars=task_vars
        )
        return result

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Query, copy, install."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        result = self._module(variables, state="query")
        if result.get("failed") or not result["missing"]:
            return result
        repository = Path(self._task.args["repository"])
        if not (repository / "Packages").is_file():
            message = (
                f"{', '.join(result['missing'])}: not installed on the host, and this release has "
                f"no packages for it ({repository} is missing). Install them by the client's own "
                "means, or ask for a bundle that was built where they can be reached; then run the "
                "same command again."
            )
            raise AnsibleActionFail(message)
        if self._task.check_mode:
            return {**result, "changed": True}
        owner = self._get_remote_user()
        staged = self._module(variables, state="stage", stage_owner=owner)
        if staged.get("failed"):
            return staged
        for path in sorted(repository.rglob("*")):
            name = path.relative_to(repository)
            if name.name == "Packages" or path.suffix in (".deb", ".rpm") or name.parts[1:]:
                self._connection.put_file(str(path), f"{STAGE}/{name}")
        return self._module(variables, state="present")
