"""The local stack's files: what a site gets, with the same pins, and nothing duplicated."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle.builder.images import lockfile
from scripts import stack_config, stack_images
from tests.unit.roles.conftest import ROLES, ROOT, load, options

LOCK = lockfile.load(ROOT / "bundle" / "images.lock.yml")
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {"secrets", "accounts", "migrate"}
#: Services whose upstream images hold one file and no shell.
WITHOUT_A_SHELL = {"postgres-exporter", "redis-exporter", "nginx-exporter", "node-exporter", "logs"}


def networks(service: str) -> set[str]:
    return set(SERVICES[service].get("networks", []))


@pytest.mark.slow
def test_the_rendered_files_are_what_the_roles_say() -> None:
    different = stack_config.wrong(stack_config.wanted())
    assert different == [], "Next: make stack-config"


def test_every_image_is_pinned_as_in_the_lock_and_has_a_variable() -> None:
    found = dict(re.findall(r"image: \$\{([A-Z_]+):-(\S+)\}", TEXT))
    for name, pin in LOCK.images.items():
        if pin.upstream:
            assert found.pop(stack_images.variable(name)) == str(pin.upstream), "make stack-config"
    assert found.pop("APP_IMAGE") == "airlift/app:local"
    # This image is not part of the product, but it is pinned, too.
    assert {name: "@sha256:" in image for name, image in found.items()} == {"LOGS_IMAGE": True}


def test_a_pin_that_moved_in_the_lock_moves_here() -> None:
    old = "docker.io/prom/prometheus:v1.0.0@sha256:" + "0" * 64
    assert stack_config.pinned(old) == str(LOCK.images["prometheus"].upstream)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_limited_hardened_and_logged_within_bounds(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert 0 < service["cpus"] <= 1
    assert service["pids_limit"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")
    assert re.fullmatch(r"\d+:\d+", service["user"])
    assert service["user"] != "0:0" or name in {"secrets", "logs"}
    assert ("healthcheck" in service) == (name not in ONCE | WITHOUT_A_SHELL)


def test_setup_waits_for_health_and_takes_no_stopped_service_for_a_finished_one() -> None:
    """A service shows as exited with code 0 between two restarts."""
    script = (ROOT / "scripts/setup-environment.sh").read_text()
    fine = re.compile(re.findall(r"^readonly FINE='(.*)'$", script, re.MULTILINE)[0])
    for name in SERVICES:
        checked = name not in ONCE | WITHOUT_A_SHELL
        assert bool(fine.search(f"{name} exited #0")) == (name in ONCE)
        assert bool(fine.search(f"{name} running #0")) == (name in WITHOUT_A_SHELL)
        assert bool(fine.search(f"{name} running healthy#0")) or not checked
        for state in ("restarting #0", "running starting#0", "running unhealthy#0", "exited #1"):
            assert not fine.search(f"{name} {state}")


def test_users_and_programs_are_the_roles() -> None:
    for name, pin in LOCK.images.items():
        if name in SERVICES and name != "grafana":
            assert SERVICES[name]["user"] == pin.user, name
            if name != "app":
                assert SERVICES[name]["entrypoint"] == [], "an image's start-up script is not used"


def test_dependencies_wait_for_health_or_the_end() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert how == {"condition": wanted}, (name, other)


def test_networks_keep_the_zones_apart() -> None:
    assert set(COMPOSE["networks"]) == {"front", "app", "data", "monitor"}
    assert {name for name, one in COMPOSE["networks"].items() if one.get("internal")} == {"data"}
    assert {name for name in SERVICES if "front" in networks(name)} == {"nginx", "app"}
    assert networks("postgres") == networks("redis") == networks("migrate") == {"data"}
    assert "data" not in networks("prometheus") | networks("nginx") | networks("grafana")


def test_nothing_is_published_beyond_loopback_unless_it_is_asked_for() -> None:
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert set(published) == {"nginx", "prometheus", "alertmanager", "grafana", "dev"}
    for name, ports in published.items():
        for port in ports:
            assert str(port).startswith(("${STACK_ADDRESS:-127.0.0.1}:", "127.0.0.1:"))
            assert name != "grafana" or str(port).startswith("127.0.0.1:")


def test_no_secret_is_in_an_environment_but_grafanas_for_the_one_that_files_it() -> None:
    for name, service in SERVICES.items():
        secret = [key for key in service.get("environment", {}) if key.endswith("PASSWORD")]
        assert secret == (["GF_SECURITY_ADMIN_PASSWORD"] if name == "secrets" else [])
    everybody = {
        name for name, one in SERVICES.items() if "secrets:/volumes/kept" in one.get("volumes", [])
    }
    assert everybody == {"secrets"}


def test_every_setting_of_the_example_is_used() -> None:
    example = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    used = set(re.findall(r"\$\{([A-Z_]+)", TEXT)) | {"COMPOSE_PROFILES"}
    assert set(example) - used == set()
    contract = {"PORT", "LOG_LEVEL", "REDIS_URL", "DATABASE_URL", "RATE_LIMIT_PER_MIN"}
    contract |= {"GF_SECURITY_ADMIN_PASSWORD", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE"}
    assert contract <= set(example)


def test_the_cluster_is_made_as_on_a_site() -> None:
    """Another locale or other checksums would make a cluster that differs from a site's."""
    command = load("postgres", "vars/main.yml")["postgres_initdb"]["command"]
    script = (ROOT / "stack/postgres-start.sh").read_text().replace("\\\n", " ")
    called = shlex.split(re.findall(r"^ *(initdb .*)$", script, re.MULTILINE)[0])
    assert [word for word in called if "--pgdata" not in word] == [
        word for word in command if "--pgdata" not in word
    ]


def test_accounts_uses_only_the_roles_own_planning() -> None:
    """The stack loads the role's file where Ansible is not installed."""
    tree = ast.parse((ROLES / "postgres/module_utils/postgres_accounts.py").read_text())
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {str(name).partition(".")[0] for name in imported} <= set(sys.stdlib_module_names)


def test_the_server_program_options_are_the_roles() -> None:
    """The stack passes the role's options to Prometheus and Alertmanager, except TLS."""
    for name in ("prometheus", "alertmanager"):
        containers = load("monitoring", "vars/main.yml")["monitoring_of_the_zone"]
        (one,) = [one for one in containers if one["name"] == name]
        theirs = {word.partition("=")[0] for word in one["command"]}
        ours = {word.partition("=")[0] for word in SERVICES[name]["command"]}
        assert theirs - ours == {"--web.config.file"}
        assert ours <= theirs


def test_no_inventory_can_switch_tls_off() -> None:
    """The templates support the stack without TLS, but no variable of a site reaches this."""
    assert yaml.safe_load((ROLES / "site/vars/main.yml").read_text())["site_tls"] is True
    assert "site_tls" not in options("site")
    for path in ROLES.rglob("*.yml"):
        if path != ROLES / "site/vars/main.yml":
            assert "site_tls:" not in path.read_text(), path


def test_the_log_forwarders_parsers_are_there_and_no_line_leaves_unasked() -> None:
    example = yaml.safe_load((ROOT / "stack/logs/fluent-bit.yaml").read_text())
    parsers = yaml.safe_load((ROOT / "stack/logs/parsers.yaml").read_text())
    known = {one["name"] for one in parsers["parsers"]}
    pipeline = example["pipeline"]
    used = {one["parser"] for one in pipeline["inputs"] + pipeline["filters"]}
    assert used == known
    assert [one["name"] for one in pipeline["outputs"]] == ["stdout"]


@pytest.mark.parametrize(
    "script", sorted((ROOT / "scripts").glob("0*.sh")), ids=lambda one: one.name
)
def test_the_readme_tells_of_each_traffic_script_what_the_script_tells(script: Path) -> None:
    readme = (ROOT / "scripts/README.md").read_text()
    (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{script.name}`")]
    said = script.read_text()
    for expression in re.findall(r"`([a-z][^`]*[a-z0-9)])` \|", row.partition("|")[2][1:]):
        assert expression in said or expression == script.name, expression
    titles = (ROLES / "monitoring/files/dashboards/service.json").read_text()
    for panel in re.findall(r"\*([A-Z][^*]+)\*", row):
        assert f'"title": "{panel}"' in titles
        assert f'"{panel}"' in said


@pytest.mark.parametrize(
    "name",
    [
        *("app/main.py", "app/requirements.txt", "Dockerfile", "docker-compose.yml", "Makefile"),
        *(".env.example", "scripts/setup-environment.sh"),
    ],
)
def test_a_name_that_people_look_for_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_make_has_the_targets_that_people_type_and_run_starts_the_stack() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert {"build", "run", "test", "lint", "fmt", "clean", "stack", "stack-down"} <= targets
    assert re.search(r"^run: stack\b", makefile, re.MULTILINE)


def test_every_stage_is_a_part_of_make_test() -> None:
    """The local stack is a stage; its long tests run in `make soak-stack`."""
    script = (ROOT / "scripts/test-all.sh").read_text()
    stages = set(re.findall(r"^    ([a-z]+)\) \S", script, re.MULTILINE))
    groups = re.findall(r"\|\| groups=\((.*)\)$", script, re.MULTILINE)
    run = [stage for lane in shlex.split(groups[0])[0].split("|") for stage in lane.split()]
    assert "stack" in stages
    assert sorted(run) == sorted(stages)
