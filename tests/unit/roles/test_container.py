"""Containers as data: defaults of an entry, and the options that the engine gets."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.unit.roles.conftest import ROLES, load, plugin

action = plugin("container/action_plugins/containers.py")
shape = plugin("container/module_utils/container_shape.py")
due = plugin("container/filter_plugins/container.py").container_due
app = plugin("app/filter_plugins/app_containers.py")

PORTS = {
    "https": 443,
    "app_blue": 8001,
    "app_green": 8002,
    "worker_blue": 8003,
    "worker_green": 8004,
}
SETTINGS: dict[str, Any] = {
    "services": "/etc/airlift/services",
    "secrets": "/etc/airlift/secrets",
    "fingerprint_key": "/etc/airlift/.fingerprint-key",
    "network": "airlift",
    "address": "10.0.0.1",
    "log_size": "20m",
    "log_files": 5,
    "ports": PORTS,
    "images": {"redis": "sha256:1"},
    "components": {"redis": {"version": "8.0"}},
}
ENTRY: dict[str, Any] = {
    "name": "redis",
    "component": "redis",
    "command": ["redis-server", "--loud"],
    "user": "999:999",
}


def complete(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = action.complete({**ENTRY, **more}, SETTINGS)
    return found


def parameters(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = shape.stays(complete(**more), SETTINGS, "f")
    return found


def test_what_an_entry_leaves_out_is_filled_in() -> None:
    one = complete()
    assert (one["image"], one["version"], one["network"]) == ("sha256:1", "8.0", "airlift")
    assert (one["memory"], one["pids"], one["state"]) == ("256m", 256, "started")


def test_ports_by_name_and_number() -> None:
    published = [{"host": "https", "container": 8443}, {"host": "81", "container": 80}]
    assert parameters(ports=published)["published_ports"] == [
        "10.0.0.1:443:8443",
        "10.0.0.1:81:80",
    ]
    with pytest.raises(Exception, match=r"port 'htps' is not in site_ports; known are .*https"):
        complete(ports=[{"host": "htps", "container": 80}])


def test_mounts_are_read_only_unless_they_say_so() -> None:
    mounts = [
        {"source": "/a", "target": "/b"},
        {"source": "/c", "target": "/d", "read_only": False},
    ]
    assert [one["read_only"] for one in parameters(mounts=mounts)["mounts"]] == [True, False]


def test_files_and_secrets_are_mounted_where_the_container_looks() -> None:
    mounts = parameters(configs={"a": "1"}, secrets={"b": "2"})["mounts"]
    assert [(one["source"], one["target"], one["read_only"]) for one in mounts] == [
        ("/etc/airlift/services/redis", "/etc/airlift/redis", True),
        ("/etc/airlift/secrets/redis", "/run/secrets", True),
    ]


def test_a_container_on_the_hosts_network_publishes_nothing() -> None:
    one = parameters(network="host", ports=[{"host": "https", "container": 1}])
    assert (one["published_ports"], one["hostname"]) == ([], None)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"memroy": "1g"}, r"container redis: memroy\. Supported parameters"),
        ({"pids": "many"}, r"container redis: .*pids"),
        ({"state": "stopped"}, r"container redis: value of state must be one of"),
        ({"component": "grafana"}, r"container redis: this release has no image of grafana"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(more: dict[str, Any], why: str) -> None:
    with pytest.raises(Exception, match=why):
        complete(**more)


def test_every_container_of_the_roles_is_known_by_its_keys() -> None:
    """A misspelt key would otherwise be found only on a site."""
    known = set(action.spec())
    found = 0
    for role in ("postgres", "redis", "edge", "monitoring"):
        for name, value in load(role, "vars/main.yml").items():
            if (
                isinstance(value, list)
                and value
                and isinstance(value[0], dict)
                and "component" in value[0]
            ):
                for one in value:
                    assert set(one) - known == set(), (name, one["name"])
                    found += 1
    assert found >= 10
    service = load("app", "vars/main.yml")
    for name in ("app_web_of_each", "app_worker_of_each"):
        assert set(service[name]) - known == {"port"} | ({"ready"} & set(service[name]))


def test_each_colour_has_ports_name_and_label_of_its_own() -> None:
    common = {"component": "app", "port": 8003, "ready": "10.0.0.2", "env": {"A": "1"}}
    both = app.app_colours_of(common, "worker", ["blue", "green"], "1.1.0", PORTS)
    assert both["green"] == {
        "component": "app",
        "name": "worker-green",
        "ports": [{"host": "worker_green", "container": 8003}],
        "probe": {"url": "http://10.0.0.2:8004/health/ready"},
        "env": {"A": "1", "COLOUR": "green"},
        "labels": {"airlift.release": "1.1.0", "airlift.colour": "green"},
    }
    assert both["blue"]["env"]["COLOUR"] == "blue"


def test_due_is_what_differs_or_is_not_well() -> None:
    compared = {"containers": [{"name": "redis", "due": True}, {"name": "postgres", "due": False}]}
    assert due([{"name": "redis"}], compared)
    assert not due([{"name": "postgres"}], compared)


def host(*names: str, serves: bool = True) -> dict[str, Any]:
    compared = {"containers": [{"name": name, "due": True} for name in names]}
    return {
        "container_compared": compared,
        **({"edge_state_content": {"content": "e30="}} if serves else {}),
    }


def test_app_hosts_take_turns_only_on_a_site_that_serves_and_where_replicas_are_due() -> None:
    assert app.app_in_turn([host("node-exporter"), host("app-blue")])
    assert app.app_in_turn([host("worker-green")])
    assert not app.app_in_turn([host("node-exporter"), host()])
    assert not app.app_in_turn([host("app-blue", serves=False)])


def test_what_is_wrong_is_told_with_host_log_and_command() -> None:
    told = {"name": "redis", "problem": "it ended with code 1", "log": ["bye"]}
    assert action.sentence("data-1", told) == (
        "airlift-redis on data-1: it ended with code 1\nIts last log lines:\n  bye\n"
        "See more with: docker logs airlift-redis"
    )


def test_the_check_of_a_configuration_sees_it_where_the_container_will() -> None:
    one = complete(configs={"a": "1"}, secrets={"b": "2"}, config_check=["sh", "-c", "true"])
    command = shape.check(one, SETTINGS)
    assert "%s:/etc/airlift/redis:ro" in command
    assert "/etc/airlift/secrets/redis:/run/secrets:ro" in command
    assert command[-3:] == ["sha256:1", "-c", "true"]
    assert command[command.index("--network") + 1] == "none"


def test_no_role_starts_a_container_by_another_way() -> None:
    """Only one role creates containers; others may query them or remove images."""
    others = [
        str(path.relative_to(ROLES))
        for path in sorted(ROLES.glob("*/tasks/*.yml"))
        for task in yaml.safe_load(path.read_text()) or []
        if "community.docker.docker_container" in task
    ]
    assert others == []


def test_without_an_engine_a_container_can_be_rehearsed_and_removed() -> None:
    nothing = {**SETTINGS, "images": {}}
    assert action.complete(ENTRY, nothing)["image"] == "redis"
    assert action.complete({"name": "redis", "state": "absent"}, nothing)["stop_timeout"] == 10
