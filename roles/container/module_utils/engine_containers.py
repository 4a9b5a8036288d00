"""Compare and create containers over one connection to a host's engine.

The rules of comparison are those of community.docker, so containers that its module made are equal
to those made here. Its code handles one container per process; this module uses it for many.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.engine_socket import EngineError
from ansible_collections.community.docker.plugins.module_utils.common_api import (
    AnsibleDockerClientBase,
)
from ansible_collections.community.docker.plugins.module_utils.module_container.base import OPTIONS
from ansible_collections.community.docker.plugins.module_utils.module_container.docker_api import (
    DockerAPIEngineDriver,
)
from ansible_collections.community.docker.plugins.module_utils.module_container.module import (
    ContainerManager,
)

#: Parameters that the comparison reads, besides the options of a container itself.
_OPTIONS: dict[str, dict[str, Any]] = {
    "cleanup": {"type": "bool", "default": False},
    "command_handling": {"type": "str", "default": "correct"},
    "comparisons": {"type": "dict"},
    "container_default_behavior": {"type": "str", "default": "no_defaults"},
    "debug": {"type": "bool", "default": False},
    "default_host_ip": {"type": "str"},
    "force_kill": {"type": "bool", "default": False},
    "healthy_wait_timeout": {"type": "float", "default": 300},
    "image": {"type": "str"},
    "image_comparison": {"type": "str", "default": "desired-image"},
    "image_label_mismatch": {"type": "str", "default": "ignore"},
    "image_name_mismatch": {"type": "str", "default": "recreate"},
    "keep_volumes": {"type": "bool", "default": True},
    "kill_signal": {"type": "str"},
    "name": {"type": "str", "required": True},
    "networks_cli_compatible": {"type": "bool", "default": True},
    "output_logs": {"type": "bool", "default": False},
    "paused": {"type": "bool"},
    "pull": {"type": "raw", "default": "never"},
    "pull_check_mode_behavior": {"type": "str", "default": "image_not_present"},
    "recreate": {"type": "bool", "default": False},
    "removal_wait_timeout": {"type": "float"},
    "restart": {"type": "bool", "default": False},
    "state": {"type": "str", "default": "started"},
}
#: On a busy host the engine sometimes loses the first output of a process that it starts. The
#: container exists then, and starts at the second attempt.
LOST_WORDS = "read init-p: connection reset by peer"


class Client(AnsibleDockerClientBase):  # type: ignore[misc]
    """The client of the engine's socket."""

    def __init__(self) -> None:
        self.fail_results: dict[str, Any] = {}
        super().__init__()

    def fail(self, msg: str, **_: Any) -> None:
        """Raise what the module would end with."""
        raise EngineError(str(msg))

    def report_warnings(self, *_: Any) -> None:
        """Do nothing: preflight checks what the engine warns about, such as missing limits."""

    def _get_params(self) -> dict[str, Any]:
        return {}


class _Asked:
    """The part of an Ansible module that the comparison needs, for one container."""

    _diff = True

    def __init__(self, spec: dict[str, Any], given: dict[str, Any], *, check_mode: bool) -> None:
        checked = ArgumentSpecValidator(spec).validate(given)
        if checked.error_messages:
            raise EngineError("; ".join(checked.error_messages))
        self.params: dict[str, Any] = checked.validated_parameters
        self.argument_spec = spec
        self.check_mode = check_mode

    def fail_json(self, msg: str, **_: Any) -> None:
        raise EngineError(str(msg))

    def warn(self, *_: Any) -> None:
        """Do nothing: the options that it warns about are intended."""

    log = warn


class Engine:
    """Compares containers with the wanted ones, and applies the differences."""

    def __init__(self) -> None:
        self._driver = DockerAPIEngineDriver()
        self._client = Client()
        self._options = [one for one in OPTIONS if one.supports_engine(self._driver.name)]
        self._spec = dict(_OPTIONS)
        for one in self._options:
            self._spec.update(one.argument_spec)

    def converge(self, parameters: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
        """Return C(changed), C(diff) and, of a one-time command, its status and output."""
        for _ in range(2):
            try:
                return self._once(parameters, check_mode=check_mode)
            except EngineError as error:
                if LOST_WORDS not in str(error):
                    raise
        return self._once(parameters, check_mode=check_mode)

    def _once(self, parameters: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
        asked = _Asked(self._spec, parameters, check_mode=check_mode)
        self._client.fail_results = {}
        found: dict[str, Any] = {}

        def work() -> None:
            manager = ContainerManager(asked, self._driver, self._client, self._options)
            manager.run()
            found.update(manager.results)

        self._driver.run(work, self._client)
        return found
