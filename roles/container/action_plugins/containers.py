"""Complete the container entries with defaults, apply them, and evaluate the result."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

SPEC = Path(__file__).resolve().parents[1] / "meta" / "argument_specs.yml"


@cache
def spec() -> dict[str, Any]:
    """Return the specification of an entry, in the form that Ansible validates."""
    main = yaml.safe_load(SPEC.read_text(encoding="utf-8"))["argument_specs"]["main"]
    options: dict[str, Any] = main["options"]["container_wanted"]["options"]
    return options


def port(host: Any, ports: Mapping[str, int]) -> int:
    """Return a port number; `host` is a name in site_ports or a number."""
    if isinstance(host, str) and not host.isdigit():
        if host not in ports:
            known = ", ".join(sorted(ports))
            message = f"port {host!r} is not in site_ports; known are {known}"
            raise AnsibleActionFail(message)
        return int(ports[host])
    return int(host)


def complete(given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with the defaults of all keys that it omits."""
    name = given.get("name", "?")
    checked = ArgumentSpecValidator(spec()).validate(dict(given))
    if checked.error_messages:
        message = f"container {name}: {'; '.join(checked.error_messages)}"
        raise AnsibleActionFail(message)
    one: dict[str, Any] = checked.validated_parameters
    if one["state"] == "absent":
        return one
    component = one["component"]
    if one["state"] != "files" and not one["image"]:
        if settings["images"] and component not in settings["images"]:
            message = f"container {name}: this release has no image of {component}"
            raise AnsibleActionFail(message)
        # In check mode on an empty host there is no engine, so the image has no id yet.
        one["image"] = settings["images"].get(component, component)
    one["version"] = one["version"] or settings["components"].get(component, {}).get("version", "")
    one["network"] = one["network"] or settings["network"]
    one["address"] = settings["address"]
    one["log_size"], one["log_files"] = settings["log_size"], settings["log_files"]
    one["ports"] = [
        {**each, "host": port(each["host"], settings["ports"])} for each in one["ports"]
    ]
    return one


def sentence(host: str, told: Mapping[str, Any]) -> str:
    """Return the reason why a container does not run, in one sentence."""
    container = f"airlift-{told['name']}"
    lines = [f"{container} on {host}: {told['problem']}"]
    if told["log"]:
        lines += ["Its last log lines:", *(f"  {line}" for line in told["log"])]
        lines += [f"See more with: docker logs {container}"]
    return "\n".join(lines)


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns the module's result; with C(judged), fails if a container is not healthy."""

    _VALID_ARGS = frozenset(("wanted", "settings", "judged"))
    _supports_diff = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Run the module once for all entries."""
        super().run(tmp, task_vars)
        arguments = self._task.args
        settings = arguments["settings"]
        wanted = [complete(one, settings) for one in arguments["wanted"]]
        if not wanted:
            return {"changed": False, "containers": []}
        host = str((task_vars or {}).get("inventory_hostname", "?"))
        runs = [one["name"] for one in wanted if one["state"] in ("started", "once")]
        if runs and not settings["images"] and not self._task.check_mode:
            message = f"{host}: the engine was not asked, so no image of {', '.join(runs)} is known"
            raise AnsibleActionFail(message)
        result: dict[str, Any] = self._execute_module(
            module_name="containers",
            module_args={
                # Pass secrets separately, so that no log and no result can contain them.
                "secrets": {one["name"]: one["secrets"] for one in wanted},
                "wanted": [{**one, "secrets": sorted(one["secrets"])} for one in wanted],
                "settings": {
                    key: settings[key] for key in ("services", "secrets", "fingerprint_key")
                },
            },
            task_vars=task_vars,
        )
        wrong = [one for one in result.get("containers", ()) if one["problem"]]
        if wrong and arguments["judged"]:
            result |= {"failed": True, "msg": "\n".join(sentence(host, one) for one in wrong)}
        return result
