"""`bundle state`: save, show and restore what only this jump host has."""

from __future__ import annotations

import argparse
import shlex
import stat
import sys
from pathlib import Path
from typing import Any

from bundle.cli.answer import Answer
from bundle.cli.options import add_home, home_of
from bundle.cli.parser import add_command
from bundle.cli.passphrase import add_passphrase, passphrase_of
from bundle.cli.terminal import columns
from bundle.core.files import read_file, write_atomic
from bundle.core.output import check_replaces, writes_to
from bundle.core.text import facts, plural, size, table
from bundle.errors import AirliftError, Kind
from bundle.jumphost import restore_state, saved_state, sealed
from bundle.jumphost.saved_state import ACCEPTED, CUSTODY, OWN, SITES, TRUST, Item, State
from bundle.jumphost.store import Home

#: Vault writes each byte as four.
_LARGEST = 4 * saved_state.MOST


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "state",
        _state,
        about="Saves what no bundle brings again: each site's folder with its certificate\n"
        "authority, inventory and vault, the lists of signers and revoked keys, the\n"
        "records of accepted releases, and custody logs in Airlift's directory. The file\n"
        "is encrypted. `restore` brings it to a new jump host, after an import there. It\n"
        "refuses to replace a living state. If it is interrupted, the same command\n"
        "continues. docs/JUMP_HOST.md has the steps.",
        examples=(
            "state save /media/usb/jump.state",
            "state show /media/usb/jump.state --passphrase-file /root/state.passphrase",
            "state restore /media/usb/jump.state",
        ),
    )
    one.add_argument(
        "action",
        metavar="ACTION",
        choices=("save", "show", "restore"),
        help="save: write the file; show: list what is in it; restore: bring it to this jump host",
    )
    one.add_argument("file", type=Path, metavar="FILE", help="file of the saved state")
    add_passphrase(one)
    one.add_argument(
        "--no-inventories",
        action="store_true",
        help="save: omit inventories and vaults, if they are kept elsewhere, such as in Git",
    )
    one.add_argument(
        "--replace",
        action="store_true",
        help="restore: put the saved state in the place of a living one, which is kept beside it",
    )
    add_home(one)


def _state(arguments: argparse.Namespace) -> Answer:
    for option, action in (("no_inventories", "save"), ("replace", "restore")):
        if getattr(arguments, option) and arguments.action != action:
            raise AirliftError(
                Kind.USAGE,
                f"--{option.replace('_', '-')} is valid with `state {action}` only",
                fix=f"omit it, or use `state {action}`",
            )
    return {"save": _save, "show": _show, "restore": _restore}[arguments.action](arguments)


def _save(arguments: argparse.Namespace) -> Answer:
    path: Path = arguments.file
    check_replaces(path, sealed.HEAD, "saved state of a jump host")
    state = saved_state.collect(home_of(arguments), inventories=not arguments.no_inventories)
    packed = saved_state.pack(state)
    passphrase = passphrase_of(arguments, new=True)
    with writes_to(path, continues=False):
        raw = sealed.seal(packed, passphrase)
        private = _write(path, raw)
        # What cannot be restored is no copy, so it is read again from where it was written.
        again = read_file(path, _LARGEST, links=True)
    found = saved_state.unpack(sealed.unseal(again, passphrase, path), path)
    if found.items != state.items:
        raise AirliftError(
            Kind.OUTPUT,
            "what was written is not what was saved",
            where=str(path),
            fix="save it on another drive",
        )
    mode = "mode 0600" if private else "a drive without modes: whoever has it can copy the file"
    rows = [("saved", f"{path}, {size(len(raw))}, {mode}; read again and compared")]
    rows += _facts(state)
    text = facts(rows, columns(sys.stdout))
    text += "\n\nKeep the passphrase apart from the file: without it nobody can open the file."
    return Answer(text, {"file": str(path), "bytes": len(raw), "private": private, **_data(state)})


def _write(path: Path, raw: bytes) -> bool:
    """Write the file for its owner only; return whether the drive keeps modes."""
    try:
        write_atomic(path, raw, mode=0o600)
    except PermissionError:  # FAT has no modes
        write_atomic(path, raw)
    return stat.S_IMODE(path.stat().st_mode) == 0o600


def _open(arguments: argparse.Namespace) -> State:
    path: Path = arguments.file
    raw = read_file(path, _LARGEST, links=True)
    if not raw.startswith(sealed.HEAD):
        sealed.unseal(raw, b"", path)  # refuses it before a person types a passphrase
    return saved_state.unpack(sealed.unseal(raw, passphrase_of(arguments), path), path)


def _show(arguments: argparse.Namespace) -> Answer:
    state = _open(arguments)
    rows = [
        (_mode(item), f"{item.user or item.uid}:{item.group or item.gid}", str(len(item.data)), at)
        for at, item in state.items.items()
    ]
    listed = table(rows, ["mode", "owner", "bytes", "path"], columns(sys.stdout))
    text = f"{facts(_facts(state), columns(sys.stdout))}\n\n{listed}"
    return Answer(text, _data(state))


def _mode(item: Item) -> str:
    kinds = {b"5": stat.S_IFDIR, b"2": stat.S_IFLNK}
    return stat.filemode(kinds.get(item.kind, stat.S_IFREG) | item.mode)


def _restore(arguments: argparse.Namespace) -> Answer:
    home = home_of(arguments)
    state = _open(arguments)
    done = restore_state.restore(home, state, replace=arguments.replace)
    rows = [("restored", f"{arguments.file}, saved {_origin(state)}"), *done.parts]
    rows += [("kept", f"what was here before: {path}") for path in done.kept]
    if done.owners:
        rows.append(
            ("owners", f"not given back, because this user may not or they do not exist here: "
             f"{', '.join(done.owners)}; to change owners: sudo chown -R USER:GROUP {home.sites}")
        )  # fmt: skip
    if str(home.root) != state.about["home"]:
        rows.append(("home", f"it was {state.about['home']}: correct paths in the inventories"))
    missing = [one for one in state.about["releases"] if not home.release(one["version"]).is_dir()]
    data = {
        "parts": dict(done.parts),
        "kept": [str(path) for path in done.kept],
        "owners_missed": done.owners,
        "to_import": missing,
    }
    text = f"{facts(rows, columns(sys.stdout))}\n\n{_next(home, state, missing)}"
    return Answer(text, {**_data(state), **data})


def _next(home: Home, state: State, missing: list[dict[str, Any]]) -> str:
    """Return the commands to type now: import what sites run, then check each site."""
    from bundle.cli.import_release import vault_option  # noqa: PLC0415 - here only

    lines = ["Next:", f"  cd {home.current}"]
    for one in missing:
        bundle = f"airlift-{one['version']}-*.tar"
        lines.append(f"  ./venv/bin/python -m bundle import /media/usb/{bundle}")
    for name in state.sites:
        site = home.sites / name
        words = f"-i {shlex.quote(str(site))}{vault_option(site)}"
        lines.append(f"  ./venv/bin/ansible-playbook {words} playbooks/status.yml")
    return "\n".join(lines)


def _origin(state: State) -> str:
    return f"{state.about['saved']} on {state.about['host']}"


def _facts(state: State) -> list[tuple[str, str]]:
    rows = [("from", f"{_origin(state)}, {state.about['home']}")]
    rows += [(f"site {name}", _site(state, name)) for name in state.sites]
    records = [path for path in state.below(ACCEPTED) if path.endswith(".json")]
    rows.append(("accepted", plural(len(records), "record")))
    rows.append(("trust", ", ".join(path for path in state.below(TRUST) if path) or "none"))
    rows += [("custody log", path) for path in state.below(CUSTODY) if path]
    releases = [f"{one['version']} (serial {one['serial']})" for one in state.about["releases"]]
    rows.append(("releases", ", ".join([*releases, "not in the file: import their bundles"])))
    if state.about["not_saved"]:
        rows.append(("not saved", ", ".join(map(str, state.about["not_saved"]))))
    outside = [path for path, item in state.items.items() if _leads_out(path, item)]
    if outside:
        rows.append(("links", f"saved without what they lead to: {', '.join(outside)}"))
    return rows


def _leads_out(path: str, item: Item) -> bool:
    """Return whether a link leads out of its site's folder."""
    import posixpath  # noqa: PLC0415 - here only

    if not item.link:
        return False
    top = "/".join(path.split("/")[:2])
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), item.link))
    return not target.startswith(f"{top}/")


def _site(state: State, name: str) -> str:
    files = {path: i for path, i in state.below(f"{SITES}/{name}").items() if i.kind == b"0"}
    inventory = [path for path in files if not path.startswith(f"{OWN}/")]
    words = ["authority" if f"{OWN}/tls/ca.key" in files else "no authority"]
    if f"{OWN}/smoke.key" in files:
        words.append("smoke key")
    certificates = [path for path in files if path.endswith("/host.crt")]
    words.append(f"certificates of {plural(len(certificates), 'host')}")
    words.append(f"inventory of {plural(len(inventory), 'file')}" if inventory else "no inventory")
    plain = [
        path for path in inventory if "vault" in Path(path).name and not _encrypted(files[path])
    ]
    if plain:
        words.append(f"not encrypted by Ansible Vault: {', '.join(plain)}")
    return ", ".join(words)


def _encrypted(item: Item) -> bool:
    return item.data.startswith(b"$ANSIBLE_VAULT") or item.path.endswith(".example")


def _data(state: State) -> dict[str, Any]:
    items = [
        {
            "path": path,
            "mode": f"{item.mode:04o}",
            "owner": f"{item.user or item.uid}:{item.group or item.gid}",
            "bytes": len(item.data),
        }
        for path, item in state.items.items()
    ]
    return {"about": state.about, "sites": state.sites, "items": items}
