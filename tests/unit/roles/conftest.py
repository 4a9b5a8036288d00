"""Roles as data, and their plugins as modules."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = ROOT / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir() if (path / "tasks").is_dir())


# A module imports what roles share as Ansible packs it: all of it in one package.
ansible.module_utils.__path__ += map(str, sorted(ROLES.glob("*/module_utils")))


@cache
def plugin(path: str) -> ModuleType:
    """Import a plugin or module of a role by its path below roles/."""
    name = "role_" + path.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, ROLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load(role: str, path: str) -> Any:
    """Return a role's YAML file, or an empty mapping when the role has none."""
    file = ROLES / role / path
    return yaml.safe_load(file.read_text()) or {} if file.is_file() else {}


def options(role: str) -> dict[str, Any]:
    """Return all options of all entry points of a role."""
    entries = load(role, "meta/argument_specs.yml").get("argument_specs", {})
    return {
        name: option
        for entry in entries.values()
        for name, option in (entry.get("options") or {}).items()
    }
