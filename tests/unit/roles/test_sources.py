"""Registered sources that the inventory does not list are reported before any change."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from app.settings import Settings
from app.sources import registry
from app.sources.schemas import FileConfig
from roles.preflight.logic import settings
from roles.site.logic import sources
from tests.unit.roles.conftest import ROLES, ROOT, load, plugin

site = plugin("site/filter_plugins/site.py")
UNSET = sources.defaults(ROLES)


def of(*hosts: dict[str, Any]) -> sources.Sources:
    """Return the sources of hosts with these inventory variables."""
    return sources.of_hosts(sources.of_inventory(hosts, UNSET))


def keys(*clients: str) -> list[dict[str, str]]:
    return [{"client": client, "key_sha256": "0" * 64} for client in clients]


def listed(found: sources.Sources) -> Any:
    return yaml.safe_load(found.setting)["app_source_clients"]


def test_each_registered_source_has_to_be_listed() -> None:
    found = of(
        {
            "app_api_keys": keys("shop", "billing", "shop"),
            "app_file_roots": {"inbox": "inbox", "open": "open"},
            "app_api_sources_allowed": ["ERP.example:443"],
            "app_database_sources": {"crm": {"url": "postgresql://reader@db/crm"}},
            "app_own_database_source": "own",
            "app_source_clients": {"root:open": ["*"], "database:crm": []},
        }
    )
    assert found.unlisted == ["api:erp.example:443", "database:own", "root:inbox"]
    assert found.access == {"database:crm": [], "root:open": ["*"]}
    # Name the clients that may use it now, which each release understands, and keep listed ones.
    assert listed(found) == {
        "api:erp.example:443": ["billing", "shop"],
        "database:crm": [],
        "database:own": ["billing", "shop"],
        "root:inbox": ["billing", "shop"],
        "root:open": ["*"],
    }


def test_the_line_that_is_printed_is_enough() -> None:
    host = {"app_api_keys": keys("shop"), "app_own_database_source": "own"}
    again = of(host | {"app_source_clients": listed(of(host))})
    assert again.unlisted == []
    assert again.access == {"database:own": ["shop"], "root:inbox": ["shop"]}


def test_the_default_root_is_a_source_too() -> None:
    assert of({}).unlisted == ["root:inbox"]


def test_hosts_with_roots_of_their_own_are_one_list() -> None:
    shared = {"app_api_keys": keys("shop"), "app_source_clients": {"root:a": ["shop"]}}
    found = of(
        shared | {"app_file_roots": {"a": "a"}}, shared | {"app_file_roots": {"b": "b", "a": "a"}}
    )
    assert found.unlisted == ["root:b"]
    assert listed(found) == {"root:a": ["shop"], "root:b": ["shop"]}


def test_a_name_where_a_list_is_meant_lists_nobody() -> None:
    found = of({"app_api_keys": keys("shop"), "app_source_clients": {"root:inbox": "billing"}})
    assert found.unlisted == ["root:inbox"]
    assert listed(found) == {"root:inbox": ["billing"]}


def test_hosts_are_in_small_letters_as_the_service_writes_them() -> None:
    found = of(
        {
            "app_file_roots": {},
            "app_api_sources_allowed": ["erp.example:443"],
            "app_source_clients": {"api:ERP.Example:443": ["shop"]},
        }
    )
    assert found.unlisted == []


def test_without_authentication_there_is_nothing_to_list() -> None:
    assert of({"app_auth_enabled": False}) == ({}, [], "app_source_clients: {}")


def test_preflight_says_which_would_close_and_what_to_write() -> None:
    assert settings.unlisted_sources(of({"app_source_clients": {"root:inbox": []}})) == []
    (row,) = settings.unlisted_sources(of({"app_api_keys": keys("billing")}))
    assert (row["host"], row["level"]) == ("inventory", "error")
    assert row["fact"] == "no client could use root:inbox: not in app_source_clients"
    assert row["fix"] == (
        "in group_vars/all/main.yml, set this or a shorter list: app_source_clients: "
        '{"root:inbox": ["billing"]} - "*" means every client, [] none'
    )


@pytest.mark.parametrize("name", ["example", "lab"])
def test_the_inventories_of_the_tree_list_what_they_register(name: str) -> None:
    path = ROOT / "inventories" / name / "group_vars/all/main.yml"
    found = of(yaml.safe_load(path.read_text()))
    assert found.unlisted == []
    assert "root:inbox" in found.access


def test_a_new_site_opens_no_source() -> None:
    path = ROOT / "inventories/example/group_vars/all/main.yml"
    assert set(map(tuple, of(yaml.safe_load(path.read_text())).access.values())) == {()}


def test_people_are_told_who() -> None:
    said = site.site_sources(
        sources.of_inventory(
            [{"app_source_clients": {"root:inbox": ["*", "a"]}, "app_own_database_source": "own"}],
            UNSET,
        )
    )
    assert said["access"] == {"root:inbox": "every client"}
    assert said["unlisted"] == ["database:own"]
    assert [sources.people(one) for one in ([], ["a", "b"])] == ["no client", "a, b"]


def environment(clients: dict[str, list[str]]) -> dict[str, str]:
    """Return the environment variables of the service's containers for a setting."""
    variables = load("app", "vars/main.yml")
    loader = DataLoader()
    context = {
        "app_source_clients": clients,
        "app_open_sources": trust_as_template(variables["app_open_sources"]),
    }
    templar = Templar(loader=loader, variables=context)
    names = ("SOURCE_CLIENTS", "OPEN_SOURCES")
    return {
        name: str(templar.template(trust_as_template(variables["app_environment"][name])))
        for name in names
    }


def test_a_release_that_takes_a_star_for_a_name_keeps_the_source_open() -> None:
    """An older release may become active again, and opens unlisted sources to everybody."""
    said = environment({"root:inbox": ["*"], "root:shop": ["shop"], "root:none": []})
    assert yaml.safe_load(said["SOURCE_CLIENTS"]) == {"root:shop": ["shop"], "root:none": []}
    assert yaml.safe_load(said["OPEN_SOURCES"]) == ["root:inbox"]


def test_this_release_reads_the_two_lists_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment({"root:inbox": ["*"], "root:shop": ["shop"]}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AUTH_ENABLED", "true")
    monkeypatch.setenv("FILE_ROOTS", '{"inbox": "/a", "shop": "/b", "other": "/c"}')
    source = registry.build(Settings.load())["file"]

    def roots(client: str) -> list[str]:
        names = ("inbox", "shop", "other")
        configs = {name: FileConfig(root=name, path="a.csv") for name in names}
        return [name for name in names if source.check(configs[name], client) is None]

    assert roots("shop") == ["inbox", "shop"]
    assert roots("billing") == ["inbox"]


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: site}
    - ansible.builtin.import_role:
        name: preflight
        tasks_from: inventory
        rolespec_validate: false
    - ansible.builtin.set_fact:
        asked: "{{ site_source_settings }}"
      when: "'app' in site_host_zones"
    - ansible.builtin.copy:
        dest: "{{ found }}"
        mode: "0600"
        content: "{{ {'rows': preflight_settings_found.rows, 'plan': asked_all | site_sources}
          | to_json }}"
      delegate_to: localhost
      run_once: true
      vars:
        asked_all: "{{ groups[site_zones.app] | map('extract', hostvars, 'asked') }}"
"""


@pytest.mark.slow
@pytest.mark.parametrize("listed_here", [True, False])
def test_preflight_and_the_plan_see_what_an_inventory_lists(
    tmp_path: Path, listed_here: bool
) -> None:
    """Neither preflight nor the plan runs the service's role, so Ansible must read its defaults."""
    inventory = tmp_path / "lab"
    shutil.copytree(ROOT / "inventories/lab", inventory)
    settings_file = inventory / "group_vars/all/main.yml"
    lines = settings_file.read_text().splitlines(keepends=True)
    lines = [one for one in lines if listed_here or not one.startswith("app_source_clients:")]
    settings_file.write_text("".join(lines) + f"app_api_keys: {json.dumps(keys('billing'))}\n")
    (tmp_path / "play.yml").write_text(PLAY)
    found = tmp_path / "found.json"
    command = ["ansible-playbook", "-i", str(inventory), str(tmp_path / "play.yml")]
    command += ["-e", f"site_release_dir={ROOT}", "-e", f"found={found}"]
    done = subprocess.run(
        command,
        env={**os.environ, "ANSIBLE_ROLES_PATH": str(ROLES), "ANSIBLE_LOCAL_TEMP": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(found.read_text())
    rows = [row for row in said["rows"] if row["check"] == "source clients"]
    sources_of_it = ["api:172.30.2.254:8088", "database:own", "root:inbox"]
    if listed_here:
        assert rows == []
        assert said["plan"]["access"] == dict.fromkeys(sources_of_it, "every client")
        return
    (row,) = rows
    assert all(name in row["fact"] for name in sources_of_it)
    assert said["plan"]["unlisted"] == sources_of_it
    assert said["plan"]["setting"] in row["fix"]
    assert '"root:inbox": ["billing"]' in row["fix"]
