"""Status names host and cause of each fault, and reports nothing on a healthy site.

Each fault is made on one app host by hand, without Ansible, and removed again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from scripts.journey import SITE, Journey

HOST = "app-2"
REPORT = f"{SITE}/.airlift/status.json"


def said_by(site: Journey, *options: str) -> tuple[str, dict[str, Any]]:
    """Return the output of status in one line, and the report that it wrote."""
    output = site.play("status", *options).output
    report: dict[str, Any] = json.loads(site.lab.read("jump", REPORT))
    return " ".join(output.split()), report


def until_well(site: Journey, seconds: float = 180) -> None:
    """Wait until status finds nothing wrong."""
    deadline = time.monotonic() + seconds
    while (report := said_by(site)[1])["verdict"] != "ok":
        assert time.monotonic() < deadline, report["problems"]
        time.sleep(2)


@contextmanager
def broken(site: Journey, breaking: str, mending: str) -> Iterator[None]:
    """Break something on one host for a moment."""
    site.lab.console(HOST, breaking)
    try:
        yield
    finally:
        site.lab.console(HOST, mending)


def test_what_it_writes_is_printed_as_json(installed: Journey) -> None:
    output = installed.play("status", "-e", "status_format=json").output
    printed = output[output.index("{\n") : output.rindex("}\n") + 1]
    report = json.loads(printed)
    assert report == json.loads(installed.lab.read("jump", REPORT))
    assert report["verdict"] == "ok", report["problems"]


def test_a_limited_look_compares_with_what_serves(installed: Journey) -> None:
    said, report = said_by(installed, "--limit", HOST)
    assert f"only 1 of 5 hosts was asked: {HOST}" in said
    assert "the hosts asked are as they should be" in said
    assert report["problems"] == []
    assert HOST not in report["not_asked"]


@pytest.mark.parametrize(
    ("breaking", "mending", "cause", "effect"),
    [
        (
            "nft flush ruleset",
            "nft -f /etc/airlift/firewall.nft && systemctl restart docker",
            f"the container engine's rules for port 8001, 8003 are missing on {HOST}",
            f"the firewall table of {HOST} is missing",
        ),
    ],
    ids=["rules"],
)
def test_the_host_and_the_cause_are_named(
    installed: Journey, breaking: str, mending: str, cause: str, effect: str
) -> None:
    with broken(installed, breaking, mending):
        said, report = said_by(installed)
        assert f"Site lab needs attention: {cause}" in said
        assert effect in [one["found"] for one in report["problems"]]
        assert report["next"].endswith(f"playbooks/install.yml --limit {HOST}")
    until_well(installed)
