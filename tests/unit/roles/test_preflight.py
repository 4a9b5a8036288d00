"""Misspelt and missing settings, and what the checks compute."""

import re
from pathlib import Path
from typing import Any

import pytest

from roles.preflight.logic import settings, table
from tests.unit.roles.conftest import ROLES, load, plugin

filters = plugin("preflight/filter_plugins/preflight.py")
SPECS = """
argument_specs:
  main:
    options:
      web_port: {type: int, description: Port of the web server.}
      web_password: {type: str, required: true, no_log: true, description: Password of the web.}
      web_name: {type: str, required: true, description: Name of the web.}
  other:
    options:
      web_extra: {type: str, required: true, description: Only where it is used.}
"""


@pytest.fixture
def options(tmp_path: Path) -> dict[str, settings.Option]:
    (tmp_path / "web/meta").mkdir(parents=True)
    (tmp_path / "web/meta/argument_specs.yml").write_text(SPECS)
    return settings.known_options(tmp_path)


def test_a_misspelt_name_is_refused_with_the_nearest_one(
    options: dict[str, settings.Option],
) -> None:
    found = [settings.Setting("web_prot", "main.yml:3"), settings.Setting("web_port", "main.yml:4")]
    (row,) = settings.unknown_settings(found, options, [], {})
    assert row["fact"] == "web_prot is set in main.yml:3"
    assert row["fix"] == "did you mean web_port (Port of the web server)?"
    assert row["level"] == "error"


def test_a_name_like_nothing_is_refused_too(options: dict[str, settings.Option]) -> None:
    (row,) = settings.unknown_settings([settings.Setting("zzz", "x")], options, [], {})
    assert "preflight_own_variables" in row["fix"]


def test_names_of_ansible_and_of_the_operator_are_known(
    options: dict[str, settings.Option],
) -> None:
    found = [settings.Setting("ansible_host", "x"), settings.Setting("vault_web", "x")]
    assert settings.unknown_settings(found, options, ["ansible_host", "vault_*"], {}) == []


def test_a_misspelt_name_of_ansible_gets_ansibles(options: dict[str, settings.Option]) -> None:
    found = [settings.Setting("ansible_hots", "x")]
    (row,) = settings.unknown_settings(found, options, ["ansible_host"], {})
    assert row["fix"] == "did you mean ansible_host?"


def test_a_renamed_setting_is_told_its_new_name(options: dict[str, settings.Option]) -> None:
    found = [settings.Setting("web_prot", "main.yml:3")]
    (row,) = settings.unknown_settings(found, options, [], {"web_prot": "web_name"})
    assert row["fix"] == "rename it to web_name, with the same value"
    assert row["level"] == "error"


def test_what_the_release_renamed_leads_to_settings_that_it_has() -> None:
    options = settings.known_options(ROLES)
    renamed = settings.renamed_settings(ROLES)
    assert set(renamed.values()) <= set(options)
    assert not set(renamed) & set(options)


def missing(
    options: dict[str, settings.Option], values: dict[str, dict[str, Any]]
) -> list[tuple[str, str, str]]:
    rows = settings.missing_settings(
        options,
        {"web": list(values)},
        lambda host, name: values[host][name],
        lambda host, name: name in values[host],
    )
    return [(row["host"], row["fact"], row["fix"]) for row in rows]


def test_a_missing_secret_belongs_into_the_vault(options: dict[str, settings.Option]) -> None:
    there = {"a": {"web_name": "x"}, "b": {"web_name": "x"}}
    assert missing(options, there) == [
        (
            "inventory",
            "web_password is not set",
            "set web_password in group_vars/all/vault.yml (ansible-vault edit)",
        )
    ]


def test_missing_on_one_host_names_the_host(options: dict[str, settings.Option]) -> None:
    there = {"a": {"web_name": "x", "web_password": "y"}, "b": {"web_password": "y"}}
    assert [(host, fact) for host, fact, _ in missing(options, there)] == [
        ("b", "web_name is not set")
    ]


@pytest.mark.parametrize(
    ("value", "said"), [("", "empty"), ("CHANGE-ME", "the example's value"), (None, "empty")]
)
def test_a_placeholder_is_no_value(
    options: dict[str, settings.Option], value: Any, said: str
) -> None:
    ((_, fact, _),) = missing(options, {"a": {"web_name": "x", "web_password": value}})
    assert fact == f"web_password is {said}"


def test_a_secret_that_may_be_missing_is_not_what_everybody_knows() -> None:
    """A placeholder such as CHANGE-ME as an API key would open the service."""
    option = settings.Option("web_key", "web", False, True, "A key.", {})
    for value, found in (("CHANGE-ME", 1), ("", 0), ("x", 0)):
        rows = missing({"web_key": option}, {"a": {"web_key": value}, "b": {}})
        assert len(rows) == found


def test_roles_that_run_nowhere_need_nothing(options: dict[str, settings.Option]) -> None:
    assert missing(options, {}) == []


def test_a_wrong_secret_is_not_shown(options: dict[str, settings.Option]) -> None:
    rows = settings.wrong_values(
        options,
        {"web_password": "vault.yml:1", "web_port": "main.yml:2"},
        "a",
        lambda host, name: "hunter2",
        lambda spec, values: [f"cannot use {values}"],
    )
    assert [row["fact"] for row in rows] == [
        "web_password in vault.yml:1: has a wrong type",
        "web_port in main.yml:2: cannot use {'web_port': 'hunter2'}",
    ]


def test_what_is_true_of_all_hosts_is_said_once() -> None:
    rows = [settings.row(host, "check", "fact", "need", "fix") for host in ("a", "b")]
    assert [row["host"] for row in settings.same_for_all(rows, 2)] == ["inventory"]
    assert [row["host"] for row in settings.same_for_all(rows, 3)] == ["a", "b"]


def test_every_check_says_what_to_do() -> None:
    data = load("preflight", "vars/main.yml")
    checks = [
        check
        for name, value in data.items()
        if name.endswith("_checks")
        for check in value
        if isinstance(check, dict)
    ]
    assert len(checks) > 25
    for check in checks:
        assert (
            {"name", "ok", "fact", "need", "fix"}
            <= set(check)
            <= {"name", "ok", "fact", "need", "fix", "level"}
        )
        assert check.get("level", "error") in ("error", "warning", "info")


def test_findings_are_the_checks_that_do_not_hold() -> None:
    good = {"name": "x", "ok": True, "fact": "f", "need": "n", "fix": "do"}
    rows = filters.preflight_findings([good, {**good, "ok": False, "level": "warning"}], "h")
    assert rows == [
        {"host": "h", "check": "x", "fact": "f", "need": "n", "fix": "do", "level": "warning"}
    ]


def test_ports_of_a_host_without_ssh() -> None:
    site = load("site", "defaults/main.yml")
    ports = filters.preflight_ports(site["site_flows"], ["data"], site["site_ports"], ["ssh"])
    assert ports == sorted([5432, 6379, 9100, 9187, 9121])


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"edges": ["e1"], "data": ["d1"], "app": ["a1", "a2"]}, []),
        ({"edges": ["all-in-one"], "data": ["all-in-one"]}, []),
        ({"edges": [], "app": ["a1"]}, []),
        ({"edges": ["e1", "e2"], "data": ["d1"]}, []),
        ({"edges": ["e1"], "data": ["d1", "e1", "d2"]}, ["data has d1, e1, d2"]),
        (
            {"edges": ["e1", "e2"], "data": ["d1", "d2"]},
            ["data has d1, d2"],
        ),
    ],
)
def test_a_second_database_is_refused(groups: dict[str, Any], said: list[str]) -> None:
    zones = {"dmz": "edges", "app": "app", "data": "data", "monitor": "monitor"}
    assert filters.preflight_second_hosts(groups, zones, ["data"]) == said
    (check,) = [
        check
        for check in load("preflight", "vars/main.yml")["preflight_plan_checks"]
        if "preflight_second_hosts" in check["ok"]
    ]
    assert check.get("level", "error") == "error"
    assert "['data']" in load("preflight", "vars/main.yml")["preflight_second_hosts"]


MANIFEST = {
    "zones": {"data": {"bytes": 1000}, "app": {"bytes": 400}},
    "components": {
        "postgres": {"unpacked_size": 750},
        "redis": {"unpacked_size": 250},
    },
}


@pytest.mark.parametrize(
    ("absent", "need"), [(["postgres", "redis"], 1000), (["redis"], 250), ([], 0)]
)
def test_images_that_are_there_need_no_room(absent: list[str], need: int) -> None:
    wanted = ["postgres", "redis", "grafana"]
    assert filters.preflight_image_bytes(MANIFEST, wanted, ["data"], absent) == need


def test_needs_on_one_file_system_add_up() -> None:
    gb = 1_000_000_000
    one = {"/a": {"device": 1, "free": 5 * gb}, "/b": {"device": 1, "free": 5 * gb}}
    (found,) = filters.preflight_space(one, {"/a": 3 * gb, "/b": 3 * gb})
    assert found["short"]
    assert found["fact"] == "5.0 GB free for /a, /b"
    assert found["needs"] == "3.0 GB in /a + 3.0 GB in /b"
    two = {**one, "/b": {"device": 2, "free": 5 * gb}}
    both = filters.preflight_space(two, {"/a": 3 * gb, "/b": 3 * gb})
    assert [entry["short"] for entry in both] == [False, False]


def test_a_store_without_a_layer_is_named(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs/sha256"
    blobs.mkdir(parents=True)
    for name, data in (("m", b"m"), ("c", b"c"), ("l", b"layer")):
        (blobs / name).write_bytes(data)
    component = {
        "manifest_digest": "sha256:m",
        "config_digest": "sha256:c",
        "layers": [{"digest": "sha256:l", "size": 5}],
    }
    manifest = {"components": {"app": component}}
    assert filters.preflight_lacking(manifest, str(tmp_path)) == []
    (blobs / "l").write_bytes(b"cut")
    assert filters.preflight_lacking(manifest, str(tmp_path)) == ["app"]


def test_addresses() -> None:
    hosts = {"a": "10.0.0.1", "b": "10.0.0.1", "c": "name.example", "d": "198.18.240.9"}
    assert filters.preflight_duplicates(hosts) == ["10.0.0.1 (a, b)"]
    assert filters.preflight_no_addresses(hosts) == ["c"]
    assert filters.preflight_inside(hosts, "198.18.240.0/20") == ["d"]
    assert filters.preflight_no_networks(["10.0.0.0/8", "nonsense"]) == ["nonsense"]
    assert filters.preflight_covers(["nonsense", "10.0.0.0/8"], "10.1.1.1")


def test_the_swaps_inequalities_hold_by_default() -> None:
    timings = load("site", "defaults/main.yml")["site_timings"]
    assert timings["edge_keepalive_min"] == timings["edge_keepalive"]
    assert timings["edge_keepalive_header"] < timings["edge_keepalive"]
    assert timings["app_keepalive"] > timings["edge_upstream_keepalive"]
    assert timings["app_graceful"] < timings["edge_worker_shutdown"]
    assert timings["app_stop"] > max(timings["app_graceful"], timings["app_keepalive"])


def test_the_table_fits_a_terminal() -> None:
    rows = [
        {
            "host": "monitor-1.a-very-long-host-name",
            "check": "disk",
            "fact": "0.1 GB free for " + "/var/lib/docker, " * 5,
            "need": "12 GB",
            "fix": "enlarge the file system " * 9,
        }
    ]
    text = table.render(rows)
    assert max(len(line) for line in text.splitlines()) <= 120
    assert re.search(r"^ +fix: enlarge", text, re.MULTILINE)


def test_facts_of_this_machine() -> None:
    facts = plugin("preflight/library/preflight_facts.py")
    assert facts.memory_mb() > 0
    assert set(facts.os_release()) == {"id", "version", "name"}
    space = facts.free_space("/nowhere/at/all")
    assert space["existing"] == "/"
    assert space["free"] > 0


def test_all_roles_are_known() -> None:
    known = settings.known_options(ROLES)
    assert {"site_name", "tls_ca_passphrase", "images_way"} <= set(known)


@pytest.mark.parametrize("level", ["error", "warning"])
def test_the_report_for_machines_has_a_format_and_a_time_in_utc(level: str) -> None:
    rows = [{"host": "app-1", "level": level}]
    said = plugin("preflight/action_plugins/preflight_report.py").report_of("acme", rows, ["app-1"])
    assert (said["format"], said["site"], said["hosts"]) == (1, "acme", ["app-1"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", said["time"])
    assert said["passed"] is (level == "warning")
    assert (said["errors"], said["warnings"]) == ((rows, []) if level == "error" else ([], rows))
