"""Containers for migrations and API keys start only if something is due."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from roles.postgres.module_utils import postgres_keys
from tests.unit.roles.conftest import ROLES
from tests.unit.site.playkit import Desk

pytestmark = pytest.mark.slow

SMOKE = "a" * 48
A, B = (hashlib.sha256(word).hexdigest() for word in (b"a", b"b"))
SCHEMA = {"version": 2, "lowest_compatible": 1, "bytes": 1}


class Site(Desk):
    """A desk whose role `app` reports which containers it would start."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        (self.roles / "app").unlink()
        shutil.copytree(ROLES / "app", self.roles / "app")
        started = {"name": "Start", "ansible.builtin.debug": {"msg": "STARTED {{ app_once.name }}"}}
        (self.roles / "app/tasks/owner.yml").write_text(yaml.safe_dump([started]))
        (self.root / "site/.airlift/smoke.key").write_text(f"{SMOKE}\n")
        (self.root / "site/group_vars").mkdir()
        self.inventory.write_text(listing(A))

    @property
    def inventory(self) -> Path:
        return self.root / "site/group_vars/all.yml"

    def started(self, *cases: Any, before: Sequence[dict[str, Any]] = ()) -> list[list[str]]:
        """Return the containers that a run would start for each state of the database."""
        tasks = list(before)
        for says in cases:
            tasks += [
                {"name": "Case", "ansible.builtin.debug": {"msg": "CASE"}, "run_once": True},
                {
                    "name": "The database",
                    "ansible.builtin.set_fact": {"postgres_says": says},
                    "when": "inventory_hostname == 'edge-1'",
                },
                {
                    "name": "Due",
                    "ansible.builtin.include_role": {"name": "app", "tasks_from": "database"},
                    "when": "inventory_hostname == 'app-1'",
                },
            ]
            if says is None:
                del tasks[-2]
        code, said = self.play(*tasks)
        assert code == 0, said
        return [re.findall(r"STARTED (\w+)", case) for case in said.split("msg: CASE")[1:]]


def listing(*hashes: str) -> str:
    return yaml.safe_dump({"app_api_keys": [{"client": "c", "key_sha256": one} for one in hashes]})


def held(*hashes: str, smoke_key: str = SMOKE) -> dict[str, str]:
    """Return the keys of a database that the service has synced."""
    smoke = hashlib.sha256(smoke_key.encode()).hexdigest()
    rows: list[dict[str, Any]] = [
        {"key_hash": one, "client": "c", "rate_limit_per_min": None} for one in hashes
    ]
    rows += [{"key_hash": smoke, "client": "airlift-smoke", "rate_limit_per_min": 6000}]
    rest = {"origin": "file", "revoked_at": None, "revoked_by": None, "scopes": None, "label": None}
    return postgres_keys.held([row | rest for row in rows])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_container_starts_for_what_is_due_or_unknown(site: Site) -> None:
    both = ["migrate", "keys"]
    cases: list[tuple[Any, list[str]]] = [
        (None, both),
        ({"failed": True, "msg": "no answer"}, both),
        ({}, both),
        ({"schema": {}, "api_keys": held(A)}, both),
        # Migrations may change the format of keys.
        ({"schema": {**SCHEMA, "version": 1}, "api_keys": held(A)}, both),
        ({"schema": {**SCHEMA, "lowest_compatible": 3}, "api_keys": held(A)}, both),
        ({"schema": SCHEMA, "api_keys": held(A)}, []),
        # The site was rolled back to this release.
        ({"schema": {**SCHEMA, "version": 3}, "api_keys": held(A)}, []),
        ({"schema": SCHEMA}, ["keys"]),
        ({"schema": SCHEMA, "api_keys": held()}, ["keys"]),
        ({"schema": SCHEMA, "api_keys": held(A, B)}, ["keys"]),
    ]
    assert site.started(*(says for says, _ in cases)) == [due for _, due in cases]


def test_a_list_that_changed_during_the_run_counts(site: Site) -> None:
    """keys.yml changed it after this run had read the inventory and queried the database."""
    change = {
        "name": "keys.yml",
        "ansible.builtin.copy": {"dest": str(site.inventory), "content": listing(A, B)},
        "run_once": True,
    }
    now = {"schema": SCHEMA, "api_keys": held(A, B)}
    then = {"schema": SCHEMA, "api_keys": held(A)}
    assert site.started(then, now, before=[change]) == [["keys"], []]


def test_a_new_smoke_key_is_a_difference(site: Site) -> None:
    (site.root / "site/.airlift/smoke.key").write_text("b" * 48 + "\n")
    assert site.started({"schema": SCHEMA, "api_keys": held(A)}) == [["keys"]]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "lost"])
def test_the_vaults_smoke_key_is_taken_on_any_jump_host(site: Site, kept: bool) -> None:
    """An earlier release may have made one or not; a new one is never made."""
    file = site.root / "site/.airlift/smoke.key"
    if not kept:
        file.unlink()
    vault = "v" * 48
    site.inventory.write_text(listing(A) + yaml.safe_dump({"site_smoke_api_key": vault}))
    known = {"schema": SCHEMA, "api_keys": held(A, smoke_key=vault)}
    assert site.started(known, {"schema": SCHEMA, "api_keys": held(A)}) == [[], ["keys"]]
    assert file.exists() is kept
