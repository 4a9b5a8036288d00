"""Which addresses of its host a process listens on."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest

from app import listening
from app.settings import ConfigurationError, Settings


def test_without_networks_every_address_answers() -> None:
    assert listening.addresses([]) == [listening.EVERYWHERE]


def test_only_own_addresses_of_the_networks_answer_and_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = [ip_network(f"{one}/32")[0] for one in ("198.19.240.2", "198.19.240.130")]
    monkeypatch.setattr(listening, "_own", lambda: own)
    front = [ip_network("198.19.240.0/26"), ip_network("198.19.240.64/26")]
    assert listening.addresses(front) == ["127.0.0.1", "198.19.240.2"]


def test_own_addresses_are_those_of_this_machine() -> None:
    for address in listening._own():
        with socket.create_server((str(address), 0)):
            assert not address.is_loopback


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: address already"):
            listening.bound(["127.0.0.1"], port)


def test_a_network_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_NETWORKS", '["nowhere"]')
    with pytest.raises((ConfigurationError, ValueError), match=r"(?i)nowhere|network"):
        Settings.load()
