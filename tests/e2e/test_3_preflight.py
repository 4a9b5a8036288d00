"""Preflight names each problem of a site (host, fact, need, fix) and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import pytest

from scripts.journey import SITE, Journey
from scripts.lab import Done
from tests.e2e.support import HOSTS, last_words

BAD = f"{SITE}-bad"
SETTINGS = f"{BAD}/group_vars/all/main.yml"
_TAKE = """
import socket, sys
server = socket.create_server(("0.0.0.0", 443))
print("ready", flush=True)
sys.stdin.read()
"""
_FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


@contextmanager
def powered_off(journey: Journey) -> Iterator[None]:
    """A host that is down."""
    journey.lab.docker("stop", journey.lab.name("app-2"))
    try:
        yield
    finally:
        journey.lab.docker("start", journey.lab.name("app-2"))


def port_taken(journey: Journey) -> AbstractContextManager[None]:
    """A server that is not Airlift's on the edge's port."""
    return journey.lab.running("edge-1", _TAKE)


@contextmanager
def clock_off(journey: Journey) -> Iterator[None]:
    """A host whose clock is five minutes ahead, for every program on it.

    Containers share the machine's clock, so each program on that host runs with libfaketime.
    """
    lab = journey.lab
    library = "/usr/local/lib/libfaketime.so.1"
    lab.send("data-1", f"cat > {library}", data=lab.read("router", _FAKETIME))
    try:
        lab.console("data-1", f"echo +300s > /etc/faketimerc; echo {library} > /etc/ld.so.preload")
        yield
    finally:
        lab.console("data-1", f": > /etc/ld.so.preload; rm -f /etc/faketimerc {library}")


@contextmanager
def no_sudo(journey: Journey) -> Iterator[None]:
    """A host on which the login user is not allowed to become root."""
    file = "/etc/sudoers.d/airlift-admin"
    journey.lab.console("monitor-1", f"mv {file} /root/sudo-rule")
    try:
        yield
    finally:
        journey.lab.console("monitor-1", f"mv /root/sudo-rule {file}")


def sudo_that(host: str, rule: str) -> Callable[[Journey], AbstractContextManager[None]]:
    """A host whose sudo has another rule for the login user, in a file that is read last."""

    @contextmanager
    def hosts(journey: Journey) -> Iterator[None]:
        file = "/etc/sudoers.d/zz-rule"
        journey.lab.console(host, f"echo '{rule}' > {file}; chmod 0440 {file}")
        try:
            yield
        finally:
            journey.lab.console(host, f"rm {file}")

    return hosts


@contextmanager
def key_changed(journey: Journey) -> Iterator[None]:
    """A host whose SSH key differs from the known one."""
    lab, key = journey.lab, "/etc/ssh/ssh_host_ed25519_key"
    lab.console("edge-1", f"mv {key} /root/key; ssh-keygen -q -t ed25519 -N '' -f {key}")
    lab.console("edge-1", "systemctl restart ssh")
    # Persistent connections would hide it.
    lab.console("jump", "pkill -u operator -f 'ssh: .*\\[mux\\]' || :")
    try:
        yield
    finally:
        lab.console("edge-1", f"mv /root/key {key}; systemctl restart ssh")


def untouched(_journey: Journey) -> AbstractContextManager[None]:
    """Nothing is wrong with the hosts."""
    return nullcontext()


@dataclass(frozen=True)
class Wrong:
    """A fault, and what preflight must report about it."""

    host: str
    check: str
    words: tuple[str, ...]
    settings: str = ":"
    hosts: Callable[[Journey], AbstractContextManager[None]] = untouched


def add(line: str) -> str:
    """Return the shell command that adds a line to the site's settings."""
    return f"printf '%s\\n' '{line}' >> {SETTINGS}"


#: Faults that are present in one run of preflight each, one fault per host.
WRONG = {
    "the inventory": [
        Wrong(
            "inventory",
            "variable name",
            ("postgres_memroy", "postgres_memory"),
            settings=add("postgres_memroy: 2048m"),
        ),
        Wrong(
            "inventory",
            "",
            ("site_public_name",),
            settings=f"sed -i '/^site_public_name:/d' {SETTINGS}",
        ),
        # A value of the wrong kind.
        Wrong("inventory", "", ("app_web_concurrency",), settings=add("app_web_concurrency: many")),
        Wrong(
            "inventory",
            "source clients",
            ("database:own", "root:inbox", "app_source_clients"),
            settings=f"sed -i '/^app_source_clients:/d' {SETTINGS}",
        ),
    ],
    "a second data host": [
        Wrong(
            "site",
            "zones",
            ("data has data-1, monitor-1",),
            settings=f"echo 'data: {{hosts: {{monitor-1: }}}}' > {BAD}/second.yml",
        ),
    ],
    "the hosts": [
        Wrong("app-2", "reachable", ("172.30.2.12",), hosts=powered_off),
        Wrong("edge-1", "ports", ("443",), hosts=port_taken),
        Wrong(
            "data-1",
            "disk",
            ("GB",),
            settings=add("preflight_data_gb: {dmz: 1, app: 2, data: 90000, monitor: 5}"),
        ),
        Wrong("monitor-1", "sudo", ("root",), hosts=no_sudo),
        Wrong(
            "app-1",
            "sudo",
            ("!requiretty", "ansible_pipelining"),
            hosts=sudo_that("app-1", "Defaults requiretty"),
        ),
    ],
    "the hosts otherwise": [
        Wrong(
            "monitor-1",
            "memory",
            ("MB",),
            settings=add("preflight_memory_mb: {dmz: 1, app: 1, data: 1, monitor: 9000000}"),
        ),
        Wrong("data-1", "clock", ("ahead", "5 s"), hosts=clock_off),
        Wrong("edge-1", "reachable", ("172.30.1.10",), hosts=key_changed),
        Wrong(
            "app-2",
            "sudo",
            ("--ask-become-pass",),
            hosts=sudo_that("app-2", "airlift-admin ALL=(ALL) PASSWD: ALL"),
        ),
    ],
}


def preflight(journey: Journey, verb: str = "preflight") -> Done:
    """Run a playbook on the bad copy of the site."""
    command = journey.playbook_command(verb).replace(f"-i {SITE} ", f"-i {BAD} ")
    return journey.lab.ssh(command, check=False)


@pytest.fixture
def bad(placed: Journey) -> Iterator[Journey]:
    """A copy of the site that tests may damage."""
    placed.lab.ssh(f"rm -rf {BAD} && cp -r {SITE} {BAD} && rm -rf {BAD}/.airlift")
    yield placed
    placed.lab.ssh(f"rm -rf {BAD}")


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_named_with_host_fact_need_and_fix(bad: Journey, wrong: list[Wrong]) -> None:
    with ExitStack() as stack:
        for one in wrong:
            bad.lab.ssh(one.settings)
            stack.enter_context(one.hosts(bad))
        done = preflight(bad)
    assert done.code != 0, last_words(done)
    report = bad.lab.ssh(f"cat {BAD}/.airlift/preflight.json", check=False)
    assert report.code == 0, last_words(done)
    rows = json.loads(report.output)["errors"]
    # One cause gives one finding: preflight reports no consequence of it.
    assert {row["host"] for row in rows} == {one.host for one in wrong}, rows
    for one in wrong:
        found = [row for row in rows if row["host"] == one.host and one.check in row["check"]]
        assert found, (one, rows)
        for word in one.words:
            assert word in json.dumps(found)
            # People read the table, not the JSON.
            assert word in done.output
    for row in rows:
        assert row["fact"]
        assert row["need"]
        assert row["fix"]


def test_install_refuses_too_and_touches_nothing(bad: Journey) -> None:
    bad.lab.ssh(add("edge_memroy: 1g"))
    done = preflight(bad, "install")
    assert done.code != 0
    assert "edge_memroy" in done.output
    for host in HOSTS:
        script = "command -v dockerd || :; ls -d /etc/airlift /var/lib/airlift 2>/dev/null || :"
        assert bad.lab.console(host, script).output == "", host


def test_a_wrong_vault_password_is_told(bad: Journey) -> None:
    command = bad.playbook_command("preflight").replace("lab@", "lab@/dev/null #")
    done = bad.lab.ssh(command, check=False)
    assert done.code != 0
    assert "Traceback" not in last_words(done)


def test_the_good_site_passes(placed: Journey) -> None:
    placed.preflight()
    assert placed.facts.changed["preflight"] == 0
