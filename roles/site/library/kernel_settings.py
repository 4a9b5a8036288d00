#!/usr/bin/python
"""Settings of the kernel, now and after each start; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_settings
short_description: Settings of the kernel, now and after each start of the host
description:
  - Writes them to O(path) and sets those that differ now.
  - Where the kernel's settings cannot be written (a container that shares them with its machine),
    they are in the file, and a warning names what is missing now.
options:
  path:
    description: A file below sysctl.d; the last one in alphabetical order wins.
    type: path
    required: true
  settings:
    description: Name and value.
    type: dict
    required: true
  leave:
    description: Name and a value that somebody chose and that stays, with a warning.
    type: dict
    default: {}
  root:
    description: Where the kernel shows its settings.
    type: path
    default: /proc/sys
"""

EXAMPLES = r"""
- name: Forward
  kernel_settings:
    path: /etc/sysctl.d/99-zz-airlift.conf
    settings: {net.ipv4.ip_forward: 1}
"""

RETURN = r"""
was:
  description: Name and former value of what was set.
  returned: always
  type: dict
"""

import os  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

HEAD = "# Managed by Airlift.\n"


def value_of(place: Path) -> str:
    """Return a setting's value now; empty when this kernel has none of that name."""
    try:
        return " ".join(place.read_text().split())
    except OSError:
        return ""


def write(path: Path, text: str) -> None:
    """Replace a file, readable by everybody whatever the umask is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
        os.fchmod(stream.fileno(), 0o644)
        stream.flush()
        os.fsync(stream.fileno())
    Path(temporary).replace(path)


def run(options: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Bring about what is wanted; return what a module returns."""
    path, warnings, was = Path(options["path"]), [], {}
    kept = {}
    for name, value in options["settings"].items():
        place = Path(options["root"], *name.split("."))
        now, wanted = value_of(place), str(value)
        if now and now == str(options["leave"].get(name, "")):
            warnings.append(
                f"{name} is set to {now} on this host and was not changed; {wanted} is better"
            )
            continue
        kept[name] = wanted
        if not now:
            warnings.append(f"this kernel has no {name}")
        elif now != wanted:
            try:
                if not check:
                    place.write_text(wanted)
                was[name] = now
            except OSError as error:
                warnings.append(
                    f"{name} is {now} and cannot be set to {wanted} from here ({error.strerror}): "
                    f"set it on the machine: sysctl -w {name}={wanted}"
                )
    text = HEAD + "".join(f"{name} = {value}\n" for name, value in sorted(kept.items()))
    before = path.read_text() if path.is_file() else ""
    if before != text and kept and not check:
        write(path, text)
    changed = bool(was) or (bool(kept) and before != text)
    result = {"changed": changed, "was": was, "warnings": warnings}
    return {**result, "diff": {"before": before, "after": text if kept else before}}


def main() -> None:
    """Set, and tell."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "settings": {"type": "dict", "required": True},
            "leave": {"type": "dict", "default": {}},
            "root": {"type": "path", "default": "/proc/sys"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, check=module.check_mode)
        for warning in result.pop("warnings"):
            module.warn(warning)
        module.exit_json(**result)
    except OSError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
