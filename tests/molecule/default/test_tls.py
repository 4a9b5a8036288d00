"""Certificates on the host."""

import os
from pathlib import Path

import testinfra

from tests.molecule.default.conftest import Run

STATE = Path(os.environ["AIRLIFT_TRY"]) / "release/state/tls"


def test_certificates_are_the_sites(host: testinfra.host.Host) -> None:
    for name in ("host", "edge"):
        host.check_output(
            f"openssl verify -CAfile /etc/airlift/tls/ca.pem /etc/airlift/tls/{name}.crt"
        )
    names = host.check_output(
        "openssl x509 -in /etc/airlift/tls/host.crt -noout -ext subjectAltName"
    )
    for name in ("DNS:site-1", "IP Address:172.26.2.10", "DNS:localhost"):
        assert name in names


def test_keys_are_for_root_alone(host: testinfra.host.Host) -> None:
    for name in ("host", "edge"):
        file = host.file(f"/etc/airlift/tls/{name}.key")
        assert (file.mode, file.user) == (0o400, "root")


def test_the_authoritys_key_stays_on_the_jump_host(host: testinfra.host.Host) -> None:
    assert (STATE / "ca.key").stat().st_mode & 0o777 == 0o600
    assert "ENCRYPTED" in (STATE / "ca.key").read_text()
    assert not host.file("/etc/airlift/tls/ca.key").exists


def test_what_ends_soon_is_renewed(host: testinfra.host.Host, converge: Run) -> None:
    before = host.file("/etc/airlift/tls/host.crt").content_string
    key = host.file("/etc/airlift/tls/host.key").content_string
    renewed = converge("tls", "--extra-vars", '{"tls_renew_days": 900}')
    assert renewed.returncode == 0, renewed.stdout
    assert host.file("/etc/airlift/tls/host.crt").content_string != before
    assert host.file("/etc/airlift/tls/host.key").content_string == key


def certificates(host: testinfra.host.Host) -> list[str]:
    return [host.file(f"/etc/airlift/tls/{name}.crt").content_string for name in ("host", "edge")]


def test_a_wrong_passphrase_is_said_and_replaces_nothing(
    host: testinfra.host.Host, converge: Run
) -> None:
    before = (STATE / "ca.key").read_bytes(), *certificates(host)
    wrong = converge("tls", "--extra-vars", "tls_ca_passphrase=wrong", changes=False)
    assert wrong.returncode != 0
    assert "tls_ca_passphrase" in wrong.stdout
    assert ((STATE / "ca.key").read_bytes(), *certificates(host)) == before
