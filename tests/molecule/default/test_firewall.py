"""The flow table on the host: what is open, what is closed, and what is left alone."""

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
import testinfra

from bundle.builder.images import engine
from tests.molecule.default.conftest import ADDRESS, SSH, Run, connect, opens

STRANGER = "172.26.2.11"


def reachable(port: int) -> bool:
    """Say whether this machine, which is the management network, reaches a port of the host."""
    try:
        socket.create_connection((ADDRESS, port), timeout=3).close()
    except OSError:
        return False
    return True


def rules(host: testinfra.host.Host, family: str, table: str) -> str:
    """Return a table without its counters."""
    text = host.check_output(f"nft --stateless list table {family} {table} 2>/dev/null")
    return re.sub(r"packets \d+ bytes \d+", "", text)


@pytest.fixture
def without_table(host: testinfra.host.Host) -> Iterator[None]:
    """Take our table away: what is open now was closed by it."""
    host.check_output("systemctl stop airlift-firewall")
    yield
    host.check_output("systemctl start airlift-firewall")


def test_an_allowed_flow_is_open(stranger: testinfra.host.Host) -> None:
    assert reachable(443)
    assert opens(stranger, ADDRESS, 443)
    assert reachable(22)


@pytest.mark.parametrize("port", [22, 8009])
def test_a_denied_flow_is_closed(stranger: testinfra.host.Host, port: int) -> None:
    assert not opens(stranger, ADDRESS, port)


@pytest.mark.parametrize("port", [22, 8009])
@pytest.mark.usefixtures("without_table")
def test_and_it_is_our_table_that_closes_it(stranger: testinfra.host.Host, port: int) -> None:
    assert opens(stranger, ADDRESS, port)


def test_a_published_port_outside_the_table_is_closed_even_for_operators() -> None:
    assert not reachable(8009)


def test_the_host_opens_nothing_on_its_own(host: testinfra.host.Host) -> None:
    assert not opens(host, STRANGER, 22)


@pytest.mark.usefixtures("without_table")
def test_and_it_could(host: testinfra.host.Host) -> None:
    assert opens(host, STRANGER, 22)


def from_container(host: testinfra.host.Host, address: str, port: int) -> bool:
    """Say whether a container of the site can open a connection."""
    command = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'"
    return bool(host.run(f'docker exec airlift-demo bash -c "{command}"').rc == 0)


def test_a_container_opens_nothing_on_its_own(host: testinfra.host.Host) -> None:
    assert not from_container(host, STRANGER, 22)
    assert not from_container(host, ADDRESS, 22)
    assert not from_container(host, ADDRESS, 8009)


@pytest.mark.usefixtures("without_table")
def test_and_a_container_could(host: testinfra.host.Host) -> None:
    assert from_container(host, STRANGER, 22)


def test_a_container_reaches_another_zone_on_its_own_host(host: testinfra.host.Host) -> None:
    """All zones are on one host: flows between them end at the host's own ports."""
    assert from_container(host, ADDRESS, 443)


def test_containers_do_not_reach_each_other_directly(host: testinfra.host.Host) -> None:
    address = host.check_output(
        "docker inspect --format '{{.NetworkSettings.Networks.airlift.IPAddress}}' airlift-demo"
    )
    image = host.check_output("docker inspect --format '{{.Image}}' airlift-demo")
    command = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/8000'"
    answer = host.run(f'docker run --rm --network airlift {image} bash -c "{command}"')
    assert answer.rc != 0


def test_ipv6_is_closed(stranger: testinfra.host.Host, host: testinfra.host.Host) -> None:
    address = host.check_output("ip -6 -brief address show scope link dev eth0").split()
    if len(address) < 3:
        pytest.skip("this engine gives its containers no IPv6 address")
    link = address[2].split("/")[0]
    assert not opens(stranger, f"{link}%eth0", 22)


def test_other_tables_survive(host: testinfra.host.Host, converge: Run) -> None:
    host.check_output(
        "nft add table inet foreign; nft add chain inet foreign mine; "
        "nft add rule inet foreign mine tcp dport 1234 counter accept"
    )
    docker = rules(host, "ip", "nat"), rules(host, "ip", "filter")
    foreign = rules(host, "inet", "foreign")
    ours = rules(host, "inet", "airlift")
    applied = converge("firewall", "--extra-vars", '{"firewall_log": false}')
    assert applied.returncode == 0, applied.stdout
    assert rules(host, "inet", "airlift") != ours
    assert (rules(host, "ip", "nat"), rules(host, "ip", "filter")) == docker
    assert "DNAT" in docker[0].upper()
    assert rules(host, "inet", "foreign") == foreign
    host.check_output("nft delete table inet foreign")


def test_a_rule_that_somebody_added_is_taken_out(host: testinfra.host.Host, converge: Run) -> None:
    host.check_output("nft insert rule inet airlift input tcp dport 1234 accept")
    assert "1234" in rules(host, "inet", "airlift")
    assert converge("firewall").returncode == 0
    assert "1234" not in rules(host, "inet", "airlift")


def test_rules_that_lock_the_jump_host_out_are_refused(
    host: testinfra.host.Host, converge: Run
) -> None:
    before = rules(host, "inet", "airlift")
    wrong = '{"site_mgmt_addresses": ["10.9.9.9/32"]}'
    refused = converge("firewall", "-e", wrong, changes=False)
    assert refused.returncode != 0
    assert "Add 172.26.2.1/32" in refused.stdout
    assert rules(host, "inet", "airlift") == before


def test_rules_that_nobody_confirms_are_taken_back(
    host: testinfra.host.Host, converge: Run
) -> None:
    """The last line of defence: no new connection comes in, so the host heals itself."""
    before = rules(host, "inet", "airlift")
    locked = converge(
        "firewall",
        "--extra-vars",
        '{"firewall_mgmt": ["10.9.9.9/32"], "site_flows": [], "firewall_confirm_seconds": 15}',
    )
    assert locked.returncode != 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not reachable(22):
        time.sleep(1)
    assert rules(host, "inet", "airlift") == before


def test_the_table_is_back_after_a_reboot(host: testinfra.host.Host) -> None:
    before = rules(host, "inet", "airlift")
    # A container's systemd can only halt it, so the machine's reset button is pressed.
    subprocess.run([*engine.docker(), "restart", "mol-site-1"], check=True, capture_output=True)
    deadline = time.monotonic() + 90
    up = False
    while not up and time.monotonic() < deadline:
        time.sleep(2)
        # testinfra raises as long as ssh finds nobody.
        with contextlib.suppress(RuntimeError):
            up = connect("site-1").run("systemctl is-active docker").rc == 0
    again = connect("site-1")
    assert rules(again, "inet", "airlift") == before
    assert not reachable(8009)
    while time.monotonic() < deadline and not reachable(443):
        time.sleep(1)
    assert reachable(443)
    assert SSH.exists()
