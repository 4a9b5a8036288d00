"""Make the secrets of a test site on its jump host: random, encrypted with Ansible Vault.

The journey sends this program to the jump host and runs it there with the release's own Python, so
no secret leaves that host and none is ever an argument. It is called in the release's directory and
fills in what the release's example of a vault asks for. Names that a vault already has keep their
values. A real site's vault is written by its operator: ``ansible-vault create``.

    python site_vault.py SITE_DIRECTORY VAULT_PASSWORD_FILE API_KEY_FILE
"""

import hashlib
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

VAULT_ID = "lab"
# The placeholders of the example's vault.
EXAMPLE = Path("inventories/example/group_vars/all/vault.yml.example")
PLACEHOLDER = "CHANGE-ME"


def keep(path: Path) -> str:
    """Return the content of a secret file; make it with a new secret if it is missing."""
    if not path.exists():
        write(path, secrets.token_urlsafe(32) + "\n")
    return path.read_text().strip()


def write(path: Path, text: str) -> None:
    """Write a file that only its owner can read: all of it or nothing."""
    draft = path.with_name(f".{path.name}.partial")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def vault(verb: str, identity: str, *arguments: str, text: str = "") -> str:
    """Call ansible-vault; secrets go through its standard input and output."""
    program = str(Path(sys.executable).with_name("ansible-vault"))
    done = subprocess.run(
        [program, verb, "--vault-id", identity, *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"ansible-vault {verb}: {done.stderr.strip()}")
    return done.stdout


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def main() -> None:
    """Add missing secrets to the vault of the site."""
    os.umask(0o077)
    site, password_file, key_file = map(Path, sys.argv[1:4])
    file = site / "group_vars" / "all" / "vault.yml"
    keep(password_file)
    api_key = keep(key_file)
    identity = f"{VAULT_ID}@{password_file}"
    present: dict[str, Any] = {}
    if file.exists():
        present = yaml.safe_load(vault("view", identity, str(file))) or {}
    example: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    names = [name for name, value in example.items() if value == PLACEHOLDER]
    wanted: dict[str, Any] = {name: secrets.token_urlsafe(24) for name in names}
    limited = keep(key_file.with_name(f"{key_file.name}-limited"))
    # The second key is limited to a few predictions per minute, so that tests can exceed it.
    wanted["app_api_keys"] = [
        {"client": "demo", "key_sha256": _sha256(api_key)},
        {
            "client": "limited",
            "key_sha256": _sha256(limited),
            "scopes": ["predict"],
            "rate_limit_per_min": 5,
        },
    ]
    if set(wanted) <= set(present):
        print("the vault is there")
        return
    plain = yaml.safe_dump(wanted | present, sort_keys=True)
    encrypt = ("--encrypt-vault-id", VAULT_ID, "--output", "-")
    write(file, vault("encrypt", identity, *encrypt, text=plain))
    print(f"vault made: {len(wanted)} secrets")


if __name__ == "__main__":
    main()
