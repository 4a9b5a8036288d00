"""`about/settings.json`: every setting of the release's roles, for people who compare releases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bundle.errors import AirliftError, Kind
from bundle.format import manifest

if TYPE_CHECKING:
    from bundle.builder.about.subject import Subject

FORMAT = 1
RENAMED = "site/vars/renamed.yml"


def write(subject: Subject, folder: Path) -> None:
    """Describe each option of `meta/argument_specs.yml`, with its default from `defaults/`."""
    document = {"format": FORMAT, **collect(subject.tree / "roles")}
    (folder / "settings.json").write_bytes(manifest.encode(document))


def collect(roles: Path) -> dict[str, Any]:
    """Return `settings` by name, and `renamed` (old name: new name).

    A setting without a default has no key `default`; one that holds a template keeps its text.
    """
    settings: dict[str, Any] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        role = path.parents[1].name
        defaults = _load(path.parents[1] / "defaults" / "main.yml")
        entries = _load(path).get("argument_specs") or {}
        # The main entry is last, so that its description of an option wins, as in preflight.
        for entry in sorted(entries, key=lambda name: name == "main"):
            for name, spec in (entries[entry].get("options") or {}).items():
                settings[name] = _describe(role, entry, spec)
                if name in defaults:
                    settings[name]["default"] = defaults[name]
    return {"settings": settings, "renamed": _load(roles / RENAMED)}


def _describe(role: str, entry: str, spec: dict[str, Any]) -> dict[str, Any]:
    words = spec.get("description", "")
    return {
        "role": role,
        "type": spec.get("type", "str"),
        "elements": spec.get("elements"),
        "choices": spec.get("choices"),
        # The keys of a dictionary, or of a list of them, as in the role.
        "options": spec.get("options"),
        "required": entry == "main" and bool(spec.get("required")),
        "secret": bool(spec.get("no_log")),
        "description": words if isinstance(words, str) else " ".join(words),
    }


def _load(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"cannot read a role's settings: {error}",
            where=str(path),
            fix="correct this file and build again",
        ) from error
    return data or {}
