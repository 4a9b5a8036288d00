"""`keys.yml`: accepted, refused and displayed values, and the play itself on the jump host."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from pydantic import ValidationError

from app.db.keys import SCOPES, KeyEntry
from roles.key.logic import keys
from tests.unit.roles.conftest import ROOT, plugin

report = plugin("key/filter_plugins/key.py").key_report
A, B = (hashlib.sha256(word).hexdigest() for word in (b"a", b"b"))


def entry(client: str = "acme", sha256: str = A, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"scopes": [], "rate_limit": 0, "label": "", **more}
    return keys.entry(client, sha256, **given)


def test_a_key_is_what_the_service_looks_up() -> None:
    key, digest = keys.make()
    assert re.fullmatch(r"airlift_[A-Za-z0-9_-]{43}", key)
    assert hashlib.sha256(key.encode()).hexdigest() == digest
    assert keys.make()[0] != key
    full = entry("acme", digest, scopes=["jobs", "predict"], rate_limit=600, label="night run")
    assert KeyEntry(**full).row() == {
        "client": "acme",
        "scopes": ["jobs", "predict"],
        "rate_limit_per_min": 600,
        "label": "night run",
    }
    assert keys.id_of(full) == digest[:12]
    assert keys.SCOPES == SCOPES


@pytest.mark.parametrize(
    "given",
    [
        {"client": name}
        for name in ("a", "A.b_c-1", "x" * 63, "", "x" * 64, "-a", ".a", "a b", "ä", "a\n", "a/b")
    ]
    + [{"label": text} for text in ("a", " ", "x" * 100, "x" * 101, "a\tb", "ä", "a\n")]
    + [{"rate_limit": limit} for limit in (1, 1_000_000, 1_000_001, -1)]
    + [{"scopes": list(SCOPES)}, {"scopes": ["all"]}],
    ids=repr,
)
def test_the_rules_are_the_services_own(given: dict[str, Any]) -> None:
    names = {"rate_limit": "rate_limit_per_min"}
    ours = {names.get(name, name): value for name, value in given.items()}
    try:
        KeyEntry(**{"client": "acme", "key_sha256": A, **ours})
    except ValidationError:
        with pytest.raises(keys.KeyRefusedError):
            entry(**given)
    else:
        assert entry(**given)


def test_the_client_of_upgrades_is_taken() -> None:
    with pytest.raises(keys.KeyRefusedError, match="is reserved: upgrades test a release"):
        entry(keys.OWN_CLIENT)


LISTED = [
    {"client": "acme", "key_sha256": A},
    {"client": "acme", "key_sha256": B, "label": "2027"},
    {"client": "billing", "key_sha256": "c" * 64},
]


def test_a_key_is_found_by_its_client_or_id() -> None:
    assert keys.find(LISTED, "billing") == 2
    assert keys.find(LISTED, B[:12]) == 1
    assert keys.find(LISTED, A) == 0


@pytest.mark.parametrize(
    ("listed", "wanted", "reason"),
    [
        (
            LISTED,
            "acme",
            f"acme has 2 keys: {A[:12]} \\(no label\\), {B[:12]} \\(2027\\). Give the id of one",
        ),
        (LISTED, "biling", "no key with client or id 'biling'. Did you mean billing?"),
        (LISTED, A[:11], "no key with client or id"),
        (LISTED[2:], "billing", "is the last key: .* confirm with -e key_last=true"),
        ([], "billing", "no key with client or id"),
    ],
)
def test_what_cannot_be_revoked(listed: list[dict[str, Any]], wanted: str, reason: str) -> None:
    with pytest.raises(keys.KeyRefusedError, match=reason):
        keys.find(listed, wanted)


def test_the_last_key_is_revoked_when_told() -> None:
    assert keys.find(LISTED[2:], "billing", last=True) == 0


def test_two_keys_of_one_client_must_differ() -> None:
    keys.check_new(LISTED, "acme", "2028")
    for client, label in (("acme", "2027"), ("acme", ""), ("billing", "")):
        with pytest.raises(keys.KeyRefusedError, match=r"already has a key .* its own label"):
            keys.check_new(LISTED, client, label)


def stored(*rows: dict[str, Any]) -> str:
    plain = {"label": None, "scopes": list(SCOPES), "rate_limit_per_min": None, "origin": "file"}
    plain |= {"revoked_at": None, "revoked_by": None}
    # The service may write log lines to the same stream.
    return '{"event": "a line of the log"}\n' + json.dumps([plain | row for row in rows]) + "\n"


SMOKE = {"id": "5" * 12, "client": keys.OWN_CLIENT, "rate_limit_per_min": 6000}


def test_the_table_where_both_agree() -> None:
    listed = [{"client": "acme", "key_sha256": A, "scopes": ["jobs", "predict"], "label": "x"}]
    database = stored(
        {"id": A[:12], "client": "acme", "scopes": ["predict", "jobs"], "label": "x"}, SMOKE
    )
    assert report(listed, database, "play playbooks/") == (
        "CLIENT  LABEL  SCOPES        PER MINUTE  ID            STATE\n"
        f"acme    x      jobs,predict  -           {A[:12]}  in effect\n"
        "\n"
        "Inventory and database agree."
    )


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([], keys.MISSING),
        ([{"revoked_at": "now", "revoked_by": "file"}], keys.MISSING),
        (
            [{"rate_limit_per_min": 7, "scopes": ["jobs"]}],
            "other scopes, rate_limit_per_min in the database",
        ),
        ([{}, {"id": B[:12], "client": "gone"}], keys.OLD),
    ],
)
def test_what_a_restore_took_back_is_told(rows: list[dict[str, Any]], state: str) -> None:
    rows = [{"id": A[:12], "client": "acme", **row} for row in rows]
    said = report([{"client": "acme", "key_sha256": A}], stored(*rows, SMOKE), "play playbooks/")
    assert state in said
    assert said.endswith("Next: play playbooks/keys.yml -e key_sync=true")


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([{"revoked_at": "now", "revoked_by": "command"}], keys.REVOKED_BY_HAND),
        ([{}, {"id": B[:12], "client": "by-hand", "origin": "command"}], keys.BY_HAND),
        (
            [{}, {"id": B[:12], "client": "gone", "revoked_at": "now", "revoked_by": "file"}],
            keys.IN_EFFECT,
        ),
    ],
)
def test_what_was_decided_by_hand_is_only_shown(rows: list[dict[str, Any]], state: str) -> None:
    rows = [{"id": A[:12], "client": "acme", **row} for row in rows]
    said = report([{"client": "acme", "key_sha256": A}], stored(*rows), "play playbooks/")
    assert state in said
    assert "Next:" not in said


# --- The play on a site that is not installed yet: its complete part on the jump host --------


class Jump:
    """A site's directory on a jump host."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site = folder, folder / "site"
        self.vault = self.site / "group_vars" / "all" / "vault.yml"
        self.vault.parent.mkdir(parents=True)
        local = {"ansible_connection": "local", "ansible_become": False}
        local["ansible_python_interpreter"] = sys.executable
        groups: dict[str, Any] = {
            zone: {"hosts": {f"{zone}-1": {}}} for zone in ("dmz", "app", "data", "monitor")
        }
        groups["app"]["hosts"]["app-2"] = {}
        (self.site / "hosts.yml").write_text(yaml.safe_dump({**groups, "all": {"vars": local}}))
        (folder / "manifest.json").write_text('{"version": "1.0.0", "serial": 1, "components": {}}')
        settings = {
            "site_name": "acme",
            "site_public_name": "airlift.acme",
            "site_mgmt_addresses": ["10.0.0.1/32"],
            "site_data_dir": str(folder / "data"),
            "site_manifest_file": str(folder / "manifest.json"),
        }
        (self.vault.parent / "main.yml").write_text(yaml.safe_dump(settings))
        (folder / "password").write_text("right\n")
        self.lib = VaultLib([("acme", VaultSecret(b"right"))])
        text = "# secrets\napp_api_keys: []\npostgres_owner_password: s3cret\n"
        self.vault.write_bytes(self.lib.encrypt(text, vault_id="acme"))

    def view(self) -> str:
        return str(self.lib.decrypt(self.vault.read_bytes()).decode())

    def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = yaml.safe_load(self.view())["app_api_keys"]
        return found

    def play(
        self, *extra: str, fails: bool = False, book: str | Path = "playbooks/keys.yml"
    ) -> str:
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.site)]
        argv += ["--vault-id", f"acme@{self.folder / 'password'}", str(book), "-vv"]
        done = subprocess.run(
            [*argv, *(word for one in extra for word in ("-e", one))],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_LOG_PATH": str(self.folder / "log"),
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return re.sub(r"\s+", " ", done.stdout)


def one_after_another(folder: Path, requests: list[dict[str, Any]]) -> Path:
    """Run the role with each request in one run: most of the time is Ansible's start."""
    tasks = []
    for number, asked in enumerate(requests):
        said = f"REFUSED {number}: {{{{ ansible_failed_result.msg }}}}END"
        tasks.append(
            {
                "block": [{"ansible.builtin.include_role": {"name": "key"}, "vars": asked}],
                "rescue": [{"ansible.builtin.debug": {"msg": said}, "run_once": True}],
            }
        )
    play = {"hosts": "all", "gather_facts": False, "any_errors_fatal": True, "tasks": tasks}
    play["vars"] = {"site_release_dir": str(ROOT)}
    (folder / "play.yml").write_text(json.dumps([play]))
    return folder / "play.yml"


@pytest.mark.slow
def test_the_play_on_the_jump_host(tmp_path: Path) -> None:
    jump = Jump(tmp_path)
    said = jump.play("key_add=billing", "key_scopes=predict,jobs", "key_rate_limit=600")
    (key,) = re.findall(r"airlift_[\w-]{43}", said)
    (made,) = jump.listed()
    assert made == {
        "client": "billing",
        "key_sha256": hashlib.sha256(key.encode()).hexdigest(),
        "scopes": ["predict", "jobs"],
        "rate_limit_per_min": 600,
    }
    assert "install.yml puts it into effect" in said
    assert jump.view().startswith("# secrets\napp_api_keys:\n")
    # The key is shown only on the terminal.
    log = (tmp_path / "log").read_text()
    assert "Change the list in the inventory" in log
    assert "airlift_" not in log

    target = tmp_path / "crm.key"
    said = jump.play("key_add=crm", f"key_file={target}")
    key = target.read_text().strip()
    assert key not in said
    assert target.stat().st_mode & 0o777 == 0o600
    assert jump.listed()[1]["key_sha256"] == hashlib.sha256(key.encode()).hexdigest()

    assert f"billing - predict,jobs 600 {keys.id_of(made)} not installed yet" in jump.play()
    jump.play("key_revoke=billing")
    assert [one["client"] for one in jump.listed()] == ["crm"]


@pytest.mark.slow
def test_the_play_refuses(tmp_path: Path) -> None:
    jump = Jump(tmp_path)
    before = jump.vault.read_bytes()
    said = jump.play("key_clinet=acme", fails=True)
    assert "key_clinet is set in --extra-vars; keys.yml takes -e key_add=CLIENT" in said
    refused = (
        ({"key_add": "a", "key_revoke": "b"}, "key_add and key_revoke exclude each other"),
        ({"key_scopes": ["jobs"]}, "key_scopes is valid with key_add only"),
        ({"key_add": "a", "key_scopes": ["all"]}, "value of key_scopes must be one or more of"),
        ({"key_add": "-a"}, "'-a' is not a valid client name"),
        (
            {"key_add": "a", "key_file": str(tmp_path / "password")},
            "cannot be created: File exists",
        ),
    )
    said = jump.play(book=one_after_another(tmp_path, [asked for asked, _ in refused]))
    said = said.replace("''", "'")  # as YAML writes it
    for number, (_, reason) in enumerate(refused):
        assert reason in said.partition(f"REFUSED {number}: ")[2].partition("END")[0], said
    assert jump.vault.read_bytes() == before
    with (jump.vault.parent / "main.yml").open("a") as file:
        file.write('app_api_keys: "{{ [] + vault_keys }}"\nvault_keys: []\n')
    jump.vault.unlink()
    said = jump.play("key_add=a", fails=True)
    assert "main.yml: app_api_keys in line 7 is not a plain list of entries. Nothing was" in said
    (tmp_path / "data" / "swap").mkdir(parents=True)
    state = {"active": "blue", "standby": None, "release": "1.1.0", "serial": 2}
    (tmp_path / "data" / "swap" / "state.json").write_text(json.dumps(state))
    said = jump.play("key_add=a", fails=True)
    assert (
        "acme runs release 1.1.0 (serial 2); this is release 1.0.0 (serial 1). Run it there" in said
    )
    assert "/1.1.0 && ./venv/bin/ansible-playbook -i" in said
    # With an active release and no app host reachable, one sentence reports it.
    state |= {"release": "1.0.0", "serial": 1}
    (tmp_path / "data" / "swap" / "state.json").write_text(json.dumps(state))
    down = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    (jump.site / "group_vars" / "app.yml").write_text(yaml.safe_dump(down))
    said = jump.play("key_add=a", fails=True)
    assert "no app host answers (app-1, app-2); nothing was changed" in said
