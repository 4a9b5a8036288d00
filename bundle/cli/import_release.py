"""`bundle import`: verify, store, and make the release current."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.options import add_custody, add_trust, home_of, required_trust
from bundle.cli.parser import add_command
from bundle.cli.terminal import Narrator, Progress, columns, file_size, searching
from bundle.core.files import open_regular
from bundle.core.text import facts
from bundle.jumphost import importer
from bundle.jumphost.store import Home

_FIRST = ("preflight.yml", "install.yml")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "import",
        _import,
        about="Does everything that `verify` does, and stores the bundle in the same pass. Uses\n"
        "nothing of it before all of it is valid. If it is interrupted, the same command\n"
        "continues. The first import keeps the list of allowed signers.",
        examples=(
            "import /media/usb/airlift-1.0.0-amd64.tar --allowed-signers allowed_signers",
            "import /media/usb/airlift-1.1.0-since-1.0.0-amd64.tar",
        ),
    )
    one.add_argument("bundle", type=Path, help="bundle file, or the index NAME.parts of its parts")
    add_trust(one)
    add_custody(one)


def _import(arguments: argparse.Namespace) -> Answer:
    home = home_of(arguments)
    trust = required_trust(arguments, home)
    progress = Progress("verifying and storing", file_size(arguments.bundle))
    log = Narrator(progress)
    try:
        done = importer.run(
            arguments.bundle,
            trust=trust,
            home=home,
            log=log,
            progress=progress,
            searching=searching,
        )
    finally:
        progress.finish()
    data = {
        "version": done.version,
        "serial": done.serial,
        "already_imported": done.already,
        "restored": done.restored,
        "release": str(done.release),
        "signers": [signer.as_dict() for signer in done.signers],
        "ignored": list(done.ignored),
        "accepted": done.accepted,
        "new_bytes": done.new_bytes,
    }
    state = "is already imported" if done.already else "is imported and current"
    if done.restored:
        state = (
            f"is complete again; {home.current.readlink().name} stays current; "
            "to go back, run rollback.yml"
        )
    rows = [("trusted", str(signer)) for signer in done.signers]
    rows += [("ignored", reason) for reason in done.ignored]
    rows += [("accepted", done.accepted), ("release", str(done.release))]
    rows.append(("signers", f"{home.trust / 'allowed_signers'}, used from now on"))
    head = f"airlift {done.version}, serial {done.serial}, {state}"
    return Answer(
        f"{head}\n{facts(rows, columns(sys.stdout))}\n\n{_next(home)}",
        data,
    )


def _next(home: Home) -> str:
    """Return the commands to type now: upgrade an installed site, install a new one."""
    folders = sorted(home.sites.glob("*/hosts.yml")) if home.sites.is_dir() else []
    sites = [path.parent for path in folders]
    lines = ["Next:", f"  cd {home.current}"]
    if not sites:
        example = home.sites / "CLIENT"
        lines.append(f"  mkdir -p {home.sites} && cp -r inventories/example {example}")
        lines.append(f"  # fill in {example}: hosts.yml, group_vars/all/main.yml, vault.yml")
    for site in sites or [home.sites / "CLIENT"]:
        installed = (site / ".airlift" / "tls" / "ca.pem").exists()
        words = ("upgrade.yml --check", "upgrade.yml") if installed else _FIRST
        inventory = shlex.quote(str(site))
        command = f"./venv/bin/ansible-playbook -i {inventory}{vault_option(site)}"
        lines += [f"  {command} playbooks/{playbook}" for playbook in words]
    return "\n".join(lines)


def vault_option(site: Path) -> str:
    """Return the option that opens a site's secrets, with the label of its encrypted files."""
    for path in sorted((site / "group_vars").rglob("*.yml")):
        try:
            with open_regular(path, None, links=True) as stream:
                head = stream.readline(200).decode("ascii", "replace").strip().split(";")
        except OSError:
            continue
        if head[0] == "$ANSIBLE_VAULT":
            label = head[3] if len(head) > 3 else ""
            return f" --vault-id {shlex.quote(f'{label}@prompt')}"
    # Not encrypted yet, or missing: the documents name the label after the site.
    return f" --vault-id {shlex.quote(f'{site.name}@prompt')}"
