"""Settings of the kernel, now and after each start; module kernel_settings says what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.host_tools import replace

HEAD = "# Managed by Airlift.\n"


def value_of(place: Path) -> str:
    """Return a setting's value now; empty when this kernel has none of that name."""
    try:
        return " ".join(place.read_text().split())
    except OSError:
        return ""


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
        replace(path, text)
    changed = bool(was) or (bool(kept) and before != text)
    result = {"changed": changed, "was": was, "warnings": warnings}
    return {**result, "diff": {"before": before, "after": text if kept else before}}
