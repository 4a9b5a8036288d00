"""Nginx admits what the service accepts: both limits come from one setting."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from app.settings import Settings
from tests.unit.roles.conftest import ROLES, load, plugin

filters = plugin("preflight/filter_plugins/preflight.py")
EDGE = ("edge_body_limit", "edge_head_buffers", "edge_read_timeout")


def templar(settings: dict[str, Any], **inventory: Any) -> Any:
    """Return a templar as on the edge of a site whose app zone has these settings."""
    site, edge = load("site", "vars/main.yml"), load("edge", "defaults/main.yml")
    given = {"site_service_limits": site["site_service_limits"], **{n: edge[n] for n in EDGE}}
    context: dict[str, Any] = {
        name: trust_as_template(value) for name, value in {**given, **inventory}.items()
    }
    context |= {"site_zones": {"app": "apps"}, "groups": {"apps": ["app-1"]}}
    context["hostvars"] = {"app-1": {"app_settings": settings} if settings else {}}
    context["site_timings"] = load("site", "defaults/main.yml")["site_timings"]
    return Templar(loader=DataLoader(), variables=context)


def nginx(settings: dict[str, Any]) -> dict[str, str]:
    """Return the directives of Nginx that set limits."""
    text = (ROLES / "edge/templates/http.conf.j2").read_text()
    wanted = ("client_", "large_client", "send_timeout")
    lines = [line for line in text.splitlines() if line.startswith(wanted) and "{{" in line]
    shown = templar(settings).template(trust_as_template("\n".join(lines)))
    return {name: value for name, _, value in (line.partition(" ") for line in shown.splitlines())}


def test_the_defaults_are_those_of_the_service() -> None:
    limits = templar({}).template(trust_as_template("{{ site_service_limits }}"))
    known = {name.lower(): Settings.model_fields[name.lower()].default for name in limits}
    assert {name.lower(): value for name, value in limits.items()} == known
    assert nginx({}) == {
        "client_max_body_size": "1048576;",
        "large_client_header_buffers": "4 8192;",
        "client_header_timeout": "15s;",
        "client_body_timeout": "30s;",
        "send_timeout": "30s;",
    }


def test_nginx_follows_the_service() -> None:
    """The values are strings, as in an environment."""
    given = {"MAX_BODY_BYTES": "5242880", "MAX_HEAD_BYTES": "65536"}
    given |= {"HEAD_TIMEOUT_SECONDS": "20", "REQUEST_TIMEOUT_SECONDS": "90"}
    assert nginx(given) == {
        "client_max_body_size": "5242880;",
        "large_client_header_buffers": "4 16384;",
        "client_header_timeout": "20s;",
        "client_body_timeout": "90s;",
        "send_timeout": "90s;",
    }
    limit = templar(given).template(trust_as_template("{{ edge_read_timeout }}"))
    assert limit == "180s", "the service answers 504 itself"


@pytest.mark.parametrize(
    ("settings", "inventory", "said"),
    [
        ({}, {}, []),
        ({"MAX_BODY_BYTES": "5242880"}, {}, []),
        ({"MAX_BODY_BYTES": "5242880"}, {"edge_body_limit": "1m"}, ["limits"]),
        ({"MAX_BODY_BYTES": "5242880"}, {"edge_body_limit": "5m"}, []),
        ({"MAX_BODY_BYTES": "5242880"}, {"edge_body_limit": "0"}, []),
        ({"REQUEST_TIMEOUT_SECONDS": "110"}, {}, ["timings"]),
    ],
)
def test_limits_that_do_not_fit_are_told(
    settings: dict[str, Any], inventory: dict[str, Any], said: list[str]
) -> None:
    one = templar(settings, **inventory)
    one.environment.filters["preflight_size"] = filters.preflight_size
    checks = [
        check
        for check in load("preflight", "vars/main.yml")["preflight_plan_checks"]
        if "site_service_limits" in check["ok"]
    ]
    assert len(checks) == 2
    found = [check["name"] for check in checks if not one.template(trust_as_template(check["ok"]))]
    assert found == said


@pytest.mark.parametrize(
    ("text", "size"), [("1m", 1 << 20), ("8k", 8192), (512, 512), ("2G", 2 << 30)]
)
def test_sizes_of_nginx(text: object, size: int) -> None:
    assert filters.preflight_size(text) == size
