"""Rules for every role of the tree."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.roles.conftest import NAMES, ROLES, load, options, plugin


def yaml_files(role: str) -> list[Path]:
    return [
        path
        for folder in ("tasks", "handlers", "vars", "defaults", "templates")
        for path in sorted((ROLES / role / folder).rglob("*"))
        if path.is_file()
    ]


@pytest.mark.parametrize("role", NAMES)
def test_has_the_files_of_a_role(role: str) -> None:
    for path in ("defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml"):
        assert (ROLES / role / path).is_file(), f"{role} has no {path}"


@pytest.mark.parametrize("role", NAMES)
def test_argument_specs_are_the_defaults(role: str) -> None:
    specified = options(role)
    defaults = set(load(role, "defaults/main.yml"))
    required = {name for name, option in specified.items() if option.get("required")}
    assert defaults - set(specified) == set(), "defaults that argument_specs do not know"
    assert set(specified) - required - defaults == set(), "options without a default"


@pytest.mark.parametrize("role", NAMES)
def test_every_option_is_described(role: str) -> None:
    assert [name for name, option in options(role).items() if not option.get("description")] == []


@pytest.mark.parametrize("role", NAMES)
def test_variables_carry_the_roles_name(role: str) -> None:
    names = {*load(role, "defaults/main.yml"), *load(role, "vars/main.yml"), *options(role)}
    assert [name for name in names if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", NAMES)
def test_secrets_are_marked(role: str) -> None:
    secret = re.compile(r"(password|passphrase|private_key)s?$")
    plain = [
        name
        for name, option in options(role).items()
        if secret.search(name) and option.get("no_log") is not True
    ]
    assert plain == []


@pytest.mark.parametrize("role", NAMES)
def test_names_no_inventory_group(role: str) -> None:
    """Zones are names of the site; only the site's settings assign inventory groups to them."""
    literal = re.compile(r"groups(\.(?!keys|values|items|get)|\[['\"])\w+|group_names")
    allowed = {("site", "vars/main.yml")}
    found = [
        f"{path.relative_to(ROLES)}: {match.group()}"
        for path in yaml_files(role)
        if (role, str(path.relative_to(ROLES / role))) not in allowed
        for match in literal.finditer(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("role", NAMES)
def test_never_skips_failures_to_please_anyone(role: str) -> None:
    text = "".join(path.read_text() for path in yaml_files(role))
    assert "ignore_errors" not in text
    assert "host_key_checking: false" not in text.lower()
    assert "noqa" not in text


@pytest.mark.parametrize("role", NAMES)
def test_roles_that_need_settings_are_known_to_preflight(role: str) -> None:
    zones: dict[str, list[str]] = load("preflight", "vars/main.yml")["preflight_role_zones"]
    internal = {"container", "swap_agent"}  # without settings of their own
    assert role in zones or role in internal, "add it to preflight_role_zones"


def test_no_setting_has_two_roles() -> None:
    owners: dict[str, list[str]] = {}
    for role in NAMES:
        for name in options(role):
            owners.setdefault(name, []).append(role)
    assert {name: roles for name, roles in owners.items() if len(roles) > 1} == {}


def test_the_example_inventory_holds_only_known_settings() -> None:
    logic = plugin("preflight/logic/settings.py")
    known = logic.known_options(ROLES)
    example = ROLES.parent / "inventories/example/group_vars/all"
    for name in ("main.yml", "vault.yml.example"):
        values: dict[str, Any] = yaml.safe_load((example / name).read_text())
        assert [one for one in values if one not in known] == []


def test_the_example_names_every_secret_that_is_required() -> None:
    known = plugin("preflight/logic/settings.py").known_options(ROLES)
    example = ROLES.parent / "inventories/example/group_vars/all/vault.yml.example"
    there = yaml.safe_load(example.read_text())
    needed = {
        option.name
        for option in known.values()
        if option.required and option.secret and option.role != "container"
    }
    assert needed - set(there) == set()
