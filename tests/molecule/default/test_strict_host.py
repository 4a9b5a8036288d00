"""The host of this scenario has umask 0077 and a proxy (prepare.yml); Airlift inherits neither."""

import json

import pytest
import testinfra

# What others than root have to enter or read: the services' users, systemctl, nft's unit.
OPEN = {
    "/etc/airlift": 0o755,
    "/etc/airlift/services": 0o755,
    "/etc/airlift/services/demo": 0o755,
    "/etc/airlift/services/demo/text": 0o444,
    "/etc/airlift/secrets": 0o755,
    "/etc/airlift/tls": 0o755,
    "/etc/airlift/tls/ca.pem": 0o444,
    "/etc/docker": 0o755,
    "/etc/docker/daemon.json": 0o644,
    "/etc/systemd/system/airlift-firewall.service": 0o644,
    "/etc/sysctl.d/99-zz-airlift.conf": 0o644,
    "/var/lib/airlift": 0o755,
    "/var/lib/airlift/demo": 0o700,
}


def test_the_host_is_strict(host: testinfra.host.Host) -> None:
    assert host.check_output("umask") == "0077"
    assert "http_proxy=" in host.file("/etc/environment").content_string


@pytest.mark.parametrize("path", OPEN)
def test_modes_are_set_and_not_inherited(host: testinfra.host.Host, path: str) -> None:
    assert oct(host.file(path).mode) == oct(OPEN[path])


def test_no_container_was_told_of_the_proxy(host: testinfra.host.Host) -> None:
    """That the service answers its probe past it, converge.yml has shown."""
    (found,) = json.loads(host.check_output("docker inspect airlift-demo"))
    assert [one for one in found["Config"]["Env"] if "proxy" in one.lower()] == []
