"""Regressions from fuzzing: readers of clients' files, each with its smallest input."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from roles.key.logic import listedit
from tests.fuzz.of_clients import certificate
from tests.fuzz.parser import Kit
from tests.unit.roles.conftest import plugin

DEEP = "[" * 5000


@pytest.mark.parametrize("raw", [b"\xff", DEEP.encode(), b"[]"])
def test_a_clients_configuration_of_the_engine_is_refused_in_words(
    tmp_path: Path, raw: bytes
) -> None:
    module = plugin("container_engine/module_utils/engine_configuration.py")
    path = tmp_path / "daemon.json"
    path.write_bytes(raw)
    with pytest.raises(module.RefusedError, match=r"is (not )?JSON"):
        module.read(path)
    rules = plugin("container_engine/module_utils/engine_rules.py")
    assert rules.makes_rules(path, tmp_path / "none") is True


@pytest.mark.parametrize(
    "text",
    [
        "all:\n  vars:\n    app_api_keys: []\nall: {}\n",
        "a: 2026-99-99\napp_api_keys: []\n",
        "!!set\na:\n",
        "all: !!set\n  app_api_keys:\n",
        "a: " + DEEP + "\napp_api_keys: []\n",
    ],
)
def test_an_inventory_that_cannot_be_changed_safely_is_refused_in_words(text: str) -> None:
    with pytest.raises(listedit.EditError):
        listedit.add(text, "app_api_keys", {"client": "new"})


def test_an_entry_goes_behind_one_that_is_no_mapping() -> None:
    found = listedit.add("app_api_keys:\n- old\n", "app_api_keys", {"client": "new"})
    assert listedit.entries(found, "app_api_keys") == ["old", {"client": "new"}]


def test_a_certificate_whose_names_cannot_be_read_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = plugin("tls/filter_plugins/tls.py")
    der, key = certificate(Kit(tmp_path, monkeypatch))
    # A name whose length field exceeds its container.
    der = der.replace(b"\x82\x0csite.example", b"\x82\x7fsite.example")
    path = tmp_path / "site.pem"
    body = base64.encodebytes(der).decode()
    path.write_text(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    for said in (
        tls.tls_pair_problem(str(path), str(key), ["site.example"]),
        tls.tls_due(str(path), str(key), ["site.example"], 0, str(path)),
    ):
        assert said.startswith(f"{path} is not a usable certificate")
