"""Check the request of `keys.yml`, and change the list of API keys in the site's inventory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.key.logic import keys, listedit, turn, vaultfile  # noqa: E402
from roles.preflight.logic import settings  # noqa: E402
from roles.site.logic import folder  # noqa: E402
from roles.site.logic.fresh import Definition, Fresh  # noqa: E402
from roles.swap_agent.action_plugins.swap_agent import is_dead, this_run  # noqa: E402

LIST = "app_api_keys"
#: Options that are valid only with key_add, or only with key_revoke.
OF_ADD = ("scopes", "rate_limit", "label", "file")
OF_REVOKE = ("last",)
USAGE = (
    "keys.yml takes -e key_add=CLIENT (with key_scopes, key_rate_limit, key_label, key_file), "
    "-e key_revoke=CLIENT_OR_ID (with key_last) or -e key_sync=true; without any it lists the keys"
)
#: The fix for a file that a program cannot edit safely.
BY_HAND = (
    "Nothing was changed. Edit the list by hand: an entry is {client: NAME, key_sha256: SHA256}; "
    "make a key with `openssl rand -hex 32` and its SHA-256 with `printf %s KEY | sha256sum`. "
    "Then run keys.yml -e key_sync=true"
)
#: Seconds to wait for another run; one takes less than ten.
PATIENCE = 60.0


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the jump host, once for all hosts."""

    _VALID_ARGS = frozenset(("step", "add", "revoke", "sync", "hosts", "turn", *OF_ADD, *OF_REVOKE))
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Run one step; `begin` waits for the turn of this run, `end` releases it."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._path = Path(LIST)
        asked = dict(self._task.args)
        try:
            steps = {
                "check": self._check,
                "change": self._change,
                "begin": self._begin,
                "end": self._end,
            }
            return steps[asked["step"]](asked)
        except listedit.EditError as error:
            return _refused(f"{self._path}: {error}. {BY_HAND}")
        except AnsibleError as error:
            return _refused(f"{LIST} cannot be evaluated: {error.message}")
        except (keys.KeyRefusedError, vaultfile.FileError, OSError) as error:
            return _refused(str(error))

    def _check(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Reject misspelt or contradictory options before connecting to any host."""
        known = settings.known_options(Path(RELEASE) / "roles")
        defaults = Path(RELEASE) / "roles" / "preflight" / "defaults" / "main.yml"
        own = yaml.safe_load(defaults.read_text())["preflight_own_variables"]
        own = [*(self._vars.get("preflight_own_variables") or own), "ansible_*"]
        found = [
            settings.Setting(str(one), "--extra-vars") for one in load_extra_vars(self._loader)
        ]
        if rows := settings.unknown_settings(found, known, own, {}):
            said = [
                row["fact"] if row["fact"].startswith("key_") else f"{row['fact']}: {row['fix']}"
                for row in rows
            ]
            raise keys.KeyRefusedError("; ".join([*said, USAGE]))
        wanted = [verb for verb in ("add", "revoke", "sync") if asked.get(verb)]
        if len(wanted) > 1:
            both = " and ".join(f"key_{verb}" for verb in wanted)
            raise keys.KeyRefusedError(f"{both} exclude each other: run keys.yml once for each")
        for verb, options in (("add", OF_ADD), ("revoke", OF_REVOKE)):
            stray = [f"key_{name}" for name in options if asked.get(name) and verb not in wanted]
            if stray:
                raise keys.KeyRefusedError(f"{', '.join(stray)} is valid with key_{verb} only")
        if asked.get("add"):
            self._entry(asked, "0" * 64)
        return {"changed": False, "verb": wanted[0] if wanted else "list"}

    @staticmethod
    def _begin(asked: dict[str, Any]) -> dict[str, Any]:
        folder.make(Path(asked["turn"]).parent)
        holder = turn.take(Path(asked["turn"]), this_run(), is_dead, seconds=PATIENCE)
        if holder:
            raise keys.KeyRefusedError(
                f"another keys.yml is in progress (run {holder}): wait for its end, then run the "
                "same command again"
            )
        return {"changed": False}

    @staticmethod
    def _end(asked: dict[str, Any]) -> dict[str, Any]:
        turn.give_back(Path(asked["turn"]), this_run())
        return {"changed": False}

    def _change(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Add or revoke a key in the file that lists it."""
        definition = self._definition(list(asked["hosts"]))
        if asked.get("add"):
            return self._add(asked, definition)
        return self._revoke(asked, definition)

    def _add(self, asked: dict[str, Any], definition: Definition) -> dict[str, Any]:
        path = self._path = _path(definition)
        key, digest = keys.make()
        entry = self._entry(asked, digest)
        keys.check_new(self._listed(asked), entry["client"], str(asked.get("label") or ""))

        def edit(document: vaultfile.Document) -> str:
            # Check again: this time no other run can change the file before it is written.
            there = [
                one
                for one in listedit.entries(document.text, definition.name)
                if isinstance(one, dict)
            ]
            keys.check_new(there, entry["client"], str(asked.get("label") or ""))
            text = listedit.add(document.text, definition.name, entry)
            return document.text if self._task.check_mode else text

        target = self._key_file(asked)
        if target and not self._task.check_mode:
            # Save the key before the list has it: a key that is not listed does no harm.
            _write_key(target, key)
        try:
            document = vaultfile.change(path, self._loader._vault, edit)
        except BaseException:
            if target and not self._task.check_mode:
                target.unlink(missing_ok=True)
            raise
        if self._task.check_mode:
            return {"changed": True, "msg": f"would add a key for {entry['client']} to {path}"}
        self._show(asked, key, entry, target)
        where = f"{document.path}{' (encrypted)' if document.encrypted else ''}"
        return {
            "changed": True,
            "id": keys.id_of(entry),
            "client": entry["client"],
            "path": str(document.path),
            "msg": f"added key {keys.id_of(entry)} of {entry['client']} to {where}",
        }

    def _revoke(self, asked: dict[str, Any], definition: Definition) -> dict[str, Any]:
        path = self._path = _path(definition)
        wanted, last = str(asked["revoke"]).strip(), bool(asked.get("last"))
        listed = self._listed(asked)
        meant = dict(listed[keys.find(listed, wanted, last=last)])

        def edit(document: vaultfile.Document) -> str:
            # Its sha256 may be encrypted in the file, but its position in the list is the same.
            now = self._listed(asked)
            place = next((at for at, one in enumerate(now) if one == meant), None)
            if place is None or len(now) != len(listedit.entries(document.text, definition.name)):
                raise keys.KeyRefusedError(
                    f"{path} was changed meanwhile: run the same command again"
                )
            text = listedit.remove(document.text, definition.name, place)
            return document.text if self._task.check_mode else text

        document = vaultfile.change(path, self._loader._vault, edit)
        done = "would remove" if self._task.check_mode else "removed"
        return {
            "changed": True,
            "id": keys.id_of(meant),
            "client": meant["client"],
            "path": str(document.path),
            "msg": f"{done} key {keys.id_of(meant)} of {meant['client']} from {document.path}",
        }

    def _entry(self, asked: dict[str, Any], digest: str) -> keys.Entry:
        scopes = asked.get("scopes") or []
        scopes = scopes.split(",") if isinstance(scopes, str) else scopes
        try:
            limit = int(asked.get("rate_limit") or 0)
        except ValueError:
            raise keys.KeyRefusedError(
                f"key_rate_limit={asked['rate_limit']} is not a number of requests per minute"
            ) from None
        return keys.entry(
            str(asked["add"]).strip(),
            digest,
            scopes=[str(scope).strip() for scope in scopes],
            rate_limit=limit,
            label=str(asked.get("label") or ""),
        )

    def _fresh(self) -> Fresh:
        return Fresh(self._loader, self._vars["ansible_inventory_sources"])

    def _listed(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        host = next(iter(asked["hosts"]))
        return [dict(one) for one in self._fresh().value(host, LIST, [])]

    def _definition(self, hosts: list[str]) -> Definition:
        """Return where the list is defined; it must be the same for all app hosts."""
        fresh = self._fresh()
        found = {fresh.definition(host, LIST) for host in hosts}
        if len(found) > 1:
            places = ", ".join(sorted(str(one.path) for one in found))
            raise keys.KeyRefusedError(
                f"{LIST} differs between app hosts: {places}. Set it once, in group_vars/all"
            )
        definition = found.pop()
        if LIST in load_extra_vars(self._loader):
            raise keys.KeyRefusedError(
                f"{LIST} is set with -e, so no file can be changed: run the command without it"
            )
        if definition.path is None:
            return definition._replace(path=self._new_place())
        return definition

    def _new_place(self) -> Path:
        """Return the file for a list that is not defined yet."""
        folder = Path(self._vars["inventory_dir"]) / "group_vars" / "all"
        for name in ("vault.yml", "main.yml"):
            if (folder / name).is_file():
                return folder / name
        raise keys.KeyRefusedError(
            f"{LIST} is set in no file: write `{LIST}: []` into "
            f"{folder / 'vault.yml'}, then run the same command again"
        )

    @staticmethod
    def _key_file(asked: dict[str, Any]) -> Path | None:
        return Path(str(asked["file"])).expanduser().absolute() if asked.get("file") else None

    def _show(
        self, asked: dict[str, Any], key: str, entry: keys.Entry, target: Path | None
    ) -> None:
        """Show the key on the terminal only: not in a log file, callback or result."""
        if target:
            text = f"The key of {entry['client']} is in {target}. Deliver it, then delete the file."
        else:
            text = f"The key of {entry['client']}, shown only once:\n\n    {key}\n"
        self._display.display(text, screen_only=True)


def _refused(why: str) -> dict[str, Any]:
    return {"failed": True, "changed": False, "msg": why}


def _path(definition: Definition) -> Path:
    if definition.path is None:
        raise AnsibleError("no file was found")
    return definition.path


def _write_key(path: Path, key: str) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise keys.KeyRefusedError(f"key_file={path} cannot be created: {error.strerror}") from None
    with os.fdopen(handle, "w") as file:
        file.write(f"{key}\n")
        file.flush()
        os.fsync(handle)
