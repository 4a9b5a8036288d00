"""Conditions under which a certificate is due."""

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.roles.conftest import plugin

tls = plugin("tls/filter_plugins/tls.py")


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, title: str = "ca") -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.path = str(folder / f"{title}.pem")
        self.subject = name(title)
        self.issue(title, [], self, ca=True, suffix="pem")

    def issue(
        self,
        title: str,
        names: list[str],
        issuer: Any = None,
        *,
        days: int = 400,
        ca: bool = False,
        suffix: str = "crt",
    ) -> tuple[str, str]:
        issuer = issuer or self
        key = self.key if ca else ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject if ca else name(title))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=days, hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            alternatives: list[x509.GeneralName] = [
                x509.IPAddress(ipaddress.ip_address(one)) if one[0].isdigit() else x509.DNSName(one)
                for one in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        certificate = builder.sign(issuer.key, hashes.SHA256())
        path = self.folder / f"{title}.{suffix}"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path = self.folder / f"{title}.key"
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(path), str(key_path)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def due(authority: Authority, paths: tuple[str, str], names: list[str], days: int = 100) -> str:
    return str(tls.tls_due(*paths, names, days, authority.path))


def test_a_good_one_is_not_due(authority: Authority) -> None:
    paths = authority.issue("h", ["h", "10.0.0.1"])
    assert due(authority, paths, ["h", "10.0.0.1"]) == ""


def test_a_missing_one_is_due(authority: Authority, tmp_path: Path) -> None:
    assert "missing" in due(authority, (str(tmp_path / "x.crt"), str(tmp_path / "x.key")), ["h"])


def test_one_that_ends_soon_is_due(authority: Authority) -> None:
    assert "50 days left" in due(authority, authority.issue("h", ["h"], days=50), ["h"])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [(["h", "h2"], "not for h2"), (["h", "10.0.0.9"], "not for 10.0.0.9"), (["x"], "not for x")],
)
def test_one_for_other_names_is_due(authority: Authority, wanted: list[str], words: str) -> None:
    assert words in due(authority, authority.issue("h", ["h", "10.0.0.1"]), wanted)


def test_one_for_more_names_is_due(authority: Authority) -> None:
    """A name that was removed from the inventory must not stay valid for years."""
    assert "for old as well" in due(authority, authority.issue("h", ["h", "old"]), ["h"])


def test_one_of_another_authority_is_due(authority: Authority, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = Authority(other, "stranger")
    assert "another authority" in due(authority, stranger.issue("h", ["h"]), ["h"])


def test_a_host_that_trusts_another_authority_is_a_stranger(
    authority: Authority, tmp_path: Path
) -> None:
    mine = Path(authority.path)
    facts = plugin("preflight/library/preflight_facts.py")
    asked = plugin("preflight/filter_plugins/preflight.py").preflight_stranger
    assert asked(facts.authority(str(mine)), str(mine)) == ""
    old = mine.read_text()
    authority.issue("ca", [], authority, ca=True, days=900, suffix="pem")
    assert old != mine.read_text()
    assert asked(old, str(mine)) == "", "renewed, with the same key"
    for nothing in (facts.authority("/nowhere"), facts.authority("/"), "damaged"):
        assert asked(nothing, str(mine)) == ""
        assert asked(nothing, "/nowhere") == ""
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    assert f"another one in {stranger.path}" in asked(old, stranger.path)
    assert "this jump host has none" in asked(old, "/nowhere")
    Path(stranger.path).write_text("damaged")
    assert "not a usable certificate" in asked(old, stranger.path)


def test_a_key_that_does_not_fit_is_due(authority: Authority) -> None:
    one, _ = authority.issue("h", ["h"])
    _, other = authority.issue("x", ["x"])
    assert "another key" in due(authority, (one, other), ["h"])


def test_the_clients_own_may_be_a_wildcard(authority: Authority) -> None:
    paths = authority.issue("edge", ["*.example"])
    assert tls.tls_pair_problem(*paths, ["airlift.example"]) == ""
    assert "not for a.b.example" in tls.tls_pair_problem(*paths, ["a.b.example"])


def test_alternative_names() -> None:
    assert tls.tls_san(["h", "10.0.0.1"]) == ["DNS:h", "IP:10.0.0.1"]
