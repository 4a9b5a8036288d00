"""The lab before Airlift: empty hosts, and an air gap that is verified."""

from __future__ import annotations

import socket

import pytest

from scripts.lab import Lab
from tests.e2e.support import (
    HOSTS,
    LAB,
    OUTSIDE,
    address,
    connect,
    connect_all,
    no_air_gap,
    without_lab_rule,
)

MACHINES = ["jump", *HOSTS]
# Addresses that an installer would use to reach the internet.
TELLTALE = [22, 53, 80, 443, 5000, 8080]
BRIDGES = [f"{LAB['lab_base']}.{number}.1" for number in LAB["lab_networks"].values()]


@pytest.mark.parametrize("host", HOSTS)
def test_nothing_is_there_before(lab: Lab, host: str) -> None:
    """No engine, no container, no configuration, no table of ours."""
    programs = "docker dockerd containerd runc podman nft"
    found = lab.console(host, f"command -v {programs} || :").output
    assert found == ""
    paths = "/etc/airlift /var/lib/airlift /etc/docker /run/docker.sock"
    assert lab.console(host, f"ls -d {paths} 2>/dev/null || :").output == ""
    for volume in ("/var/lib/docker", "/var/lib/containerd"):
        assert lab.console(host, f"ls -A {volume}").output == "", volume


@pytest.mark.parametrize("host", HOSTS)
def test_machine_is_healthy(lab: Lab, host: str) -> None:
    assert lab.console(host, "systemctl is-system-running").output.strip() == "running"


def test_jump_host_has_python_and_ssh_only(lab: Lab) -> None:
    version = lab.console("jump", "python3 -c 'import sys; print(sys.version_info >= (3, 11))'")
    assert version.output.strip() == "True"
    assert "OpenSSH" in lab.console("jump", "ssh -V").error
    extra = "ansible ansible-playbook pip pip3 docker sudo curl wget git gcc make zstd"
    assert lab.console("jump", f"command -v {extra} || :").output == ""


def test_operator_reaches_every_host_and_checks_its_key(lab: Lab) -> None:
    for host in HOSTS:
        command = f"ssh -o BatchMode=yes airlift-admin@{address(host)} 'sudo -n hostname'"
        assert lab.ssh(command).output.strip() == host
    strict = lab.ssh(f"ssh -G airlift-admin@{address('edge-1')} | grep -i stricthostkey").output
    assert strict.split()[1] in ("ask", "yes", "true")


def test_an_unknown_host_key_is_refused(lab: Lab) -> None:
    options = "-o BatchMode=yes -o UserKnownHostsFile=/dev/null"
    refused = lab.ssh(f"ssh {options} airlift-admin@{address('edge-1')} true", check=False)
    assert refused.code != 0
    assert "Host key verification failed" in refused.error


def test_no_way_out(lab: Lab) -> None:
    """Reach neither the host outside nor the machine that runs the lab."""
    targets = [f"{OUTSIDE}:{port}" for port in TELLTALE]
    targets += [f"{bridge}:{port}" for bridge in BRIDGES for port in (22, 53, 2375, 8080)]
    for machine, answers in connect_all(lab, dict.fromkeys(MACHINES, targets)).items():
        assert set(answers.values()) == {"no answer"}, (machine, answers)


@pytest.mark.parametrize("machine", MACHINES)
def test_no_name_is_answered(lab: Lab, machine: str) -> None:
    """The engine's resolver would ask the machine's resolver, so DNS is a way out too."""
    script = "for name in lab-outside lab-outside.example; do ! getent hosts $name || exit 1; done"
    assert lab.console(machine, script).output == ""


def test_negative_control_without_the_routers_rule_all_get_out(lab: Lab) -> None:
    """Negative control: without the router's rule, hosts reach the listener outside."""
    wanted = {machine: [f"{OUTSIDE}:{port}" for port in TELLTALE] for machine in MACHINES}
    with no_air_gap(lab):
        for machine, answers in connect_all(lab, wanted).items():
            assert set(answers.values()) == {"open"}, (machine, answers)
    for machine, answers in connect_all(lab, wanted).items():
        assert set(answers.values()) == {"no answer"}, (machine, answers)


def test_negative_control_the_machine_answers_without_its_rule(lab: Lab) -> None:
    """Negative control: an internal network alone lets hosts reach the machine's bridge address."""
    bridge = BRIDGES[1]
    with socket.create_server((bridge, 0)) as server:
        target = f"{bridge}:{server.getsockname()[1]}"
        assert connect(lab, "edge-1", [target]) == {target: "no answer"}
        with without_lab_rule(lab):
            assert connect(lab, "edge-1", [target]) == {target: "open"}
        assert connect(lab, "edge-1", [target]) == {target: "no answer"}
