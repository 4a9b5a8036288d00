"""What every module on a host begins and ends with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_tools import RefusedError


def answer(work: Callable[[Any], dict[str, Any]], options: dict[str, Any]) -> None:
    """Run a module: `work` gets it and returns its result, or raises why there is none."""
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    # Modes of what it makes must not depend on the umask of sudo.
    os.umask(0o022)
    try:
        result = work(module)
    except (OSError, ValueError, RefusedError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**{"changed": False, **result})
