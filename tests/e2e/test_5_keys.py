"""A client gets a key, uses it through Nginx and loses it, without an installation."""

from __future__ import annotations

import re
import time

from scripts.journey import HOME, SITE, Journey
from scripts.roundtrip import sql
from tests.e2e.support import ok

VAULT = f"{SITE}/group_vars/all/vault.yml"
KEY_FILE = "/opt/airlift/sites/lab.e2e-key"


def test_a_key_is_made_used_and_revoked_without_an_install(installed: Journey) -> None:
    lab = installed.lab
    before = lab.ssh(f"cp -p {VAULT} {VAULT}~ && head -1 {VAULT}").output
    assert before.startswith("$ANSIBLE_VAULT;1.2;AES256;lab")
    try:
        options = ("key_add=e2e", "key_scopes=predict", "key_rate_limit=600")
        extra = [word for one in (*options, f"key_file={KEY_FILE}") for word in ("-e", one)]
        made = installed.play("keys", *extra)
        key = lab.ssh(f"cat {KEY_FILE}").output.strip()
        assert key.startswith("airlift_")
        assert key not in made.output

        def status(path: str) -> int:
            return installed.request("GET", path, key=False, headers={"X-API-Key": key})[0]

        assert status("/predict") == 200
        assert status("/items") == 403
        # Like a restore: the database is older than the key.
        sql(installed, "DELETE FROM api_keys WHERE client = 'e2e'")
        listed = installed.play("keys").output
        assert re.search(r"e2e +- +predict +600 +[0-9a-f]{12} +not in the database", listed)
        (following,) = re.findall(r"Next: (.*)", listed)
        lab.ssh_stream(f"cd {HOME}/current && {following}", what="what the list told to type")
        assert sql(installed, "SELECT revoked_at FROM api_keys WHERE client = 'e2e'") == [""]
        # The file is a vault as before, and opens with the same password and label.
        assert lab.ssh(f"head -1 {VAULT}").output == before

        installed.play("keys", "-e", "key_revoke=e2e")
        deadline = time.monotonic() + 30
        while status("/predict") != 401:
            assert time.monotonic() < deadline, "a revoked key is still accepted"
            time.sleep(0.5)
        assert ok(installed, "GET", "/predict")
    finally:
        lab.ssh(f"mv {VAULT}~ {VAULT}; rm -f {KEY_FILE}")
