"""Set kernel parameters, now and after each start; see the module kernel_settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.host_tools import replace

HEAD = "# Managed by Airlift.\n"


def value_of(place: Path) -> str:
    """Return a parameter's current value; empty if this kernel does not have it."""
    try:
        return " ".join(place.read_text().split())
    except OSError:
        return ""


def run(options: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Apply the wanted values; return the module's result."""
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
        replace(path, text)
    changed = bool(was) or (bool(kept) and before != text)
    result = {"changed": changed, "was": was, "warnings": warnings}
    return {**result, "diff": {"before": before, "after": text if kept else before}}
