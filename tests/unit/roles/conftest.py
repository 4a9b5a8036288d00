"""Roles as data, and their plugins as modules."""

import importlib.util
import json
import os
import subprocess
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


# Ansible packs all shared modules of the roles into one package, so join their folders.
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


def run_with_umask(module: str, arguments: dict[str, Any]) -> None:
    """Run a module of role site on this machine with the umask 0077, as sudo may."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible")),
            *("-i", "localhost,", "localhost", "-c", "local", "-m", module),
            *("-a", json.dumps(arguments)),
        ],
        env=os.environ
        | {
            "ANSIBLE_LIBRARY": str(ROLES / "site/library"),
            "ANSIBLE_MODULE_UTILS": str(ROLES / "site/module_utils"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
