#!/usr/bin/python3
"""airlift-swap: the edge host's own keeper of what Nginx serves.

Ansible renders the wanted configuration into a directory and calls this agent; the agent alone
decides which colour is active, puts a configuration into service, and proves that Nginx runs it.
Standard library and the engine's command line only: it must work when nothing else does.

A configuration is a *tree* with a generation number. `live` is a symbolic link to the tree in
service, so that one rename replaces all of it and a reboot finds either the old or the new one:

    /etc/airlift/edge/desired/         what Ansible wants (templates, certificates, upstreams)
    /etc/airlift/edge/trees/000007/    one generation, complete
    /etc/airlift/edge/live             -> trees/000007
    /var/lib/airlift/swap/state.json   active colour, release, generation, since

Every command starts from what is there, not from what an earlier run meant to do.
Answers are one JSON object on standard output; exit codes: 0 done, 1 refused or failed, 2 usage.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

SETTINGS = Path("/etc/airlift/swap.json")
COLOURS = ("blue", "green")
GENERATION_FILE = "generation.conf"
UPSTREAM_FILE = "upstream.conf"


class SwapError(Exception):
    """What went wrong, in a sentence for the operator."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the role tells the agent about this host."""

    root: Path
    state_file: Path
    files: tuple[str, ...]
    container: str
    image: str
    user: str
    probe_address: str
    probe_port: int
    reload_timeout: float = 15.0
    keep_trees: int = 3

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read the settings file that the role writes."""
        try:
            raw = json.loads(path.read_text())
            raw["root"], raw["state_file"] = Path(raw["root"]), Path(raw["state_file"])
            raw["files"] = tuple(raw["files"])
            return cls(**raw)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SwapError(f"cannot read the agent's settings {path}: {error}") from error


@dataclasses.dataclass(frozen=True)
class State:
    """What the edge serves; the one record of it on the site."""

    active: str
    standby: str | None
    release: str
    serial: int
    generation: int
    since: str

    @classmethod
    def load(cls, path: Path) -> State | None:
        """Read the state; None before the first installation."""
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SwapError(f"the state {path} cannot be read: {error}") from error
        raw.pop("format", None)
        return cls(**raw)

    def save(self, path: Path) -> None:
        """Write the state so that a power cut leaves the old or the new one, never half of it."""
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        body = json.dumps({"format": 1, **dataclasses.asdict(self)}, indent=1, sort_keys=True)
        staged = path.with_suffix(".new")
        write_synced(staged, (body + "\n").encode(), 0o644)
        staged.rename(path)
        sync_directory(path.parent)


def now() -> str:
    """Return the time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, body: bytes, mode: int) -> None:
    """Write a file with its final mode and flush it to disk."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as handle:
        os.fchmod(handle.fileno(), mode)
        handle.write(body)
        handle.flush()
        os.fsync(handle.fileno())


@contextlib.contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Let one agent process work at a time; the lock goes with the process, however it ends."""
    directory = settings.state_file.parent
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (directory / "agent.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SwapError("another airlift-swap is at work on this host; try again") from error
        yield


def engine(*arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run the engine's command line and return what it said."""
    try:
        return subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError as error:
        raise SwapError("docker is not installed on this host") from error
    except subprocess.TimeoutExpired as error:
        raise SwapError(f"docker {arguments[0]} took longer than {timeout:.0f} s") from error


class Edge:
    """The trees on disk and the Nginx container that serves one of them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.desired = settings.root / "desired"
        self.trees = settings.root / "trees"
        self.live = settings.root / "live"

    def wanted(self, state: State) -> dict[str, Path]:
        """Return the files of the tree that this state asks for, by their path in it."""
        files = {name: self.desired / name for name in self.settings.files}
        variant = state.active if state.standby is None else f"{state.active}-{state.standby}"
        files[UPSTREAM_FILE] = self.desired / "upstreams" / f"{variant}.conf"
        missing = [str(path) for path in files.values() if not path.is_file()]
        if missing:
            raise SwapError(f"missing in the wanted configuration: {', '.join(missing)}")
        return files

    def served(self) -> dict[str, Path]:
        """Return the files of the live tree, without the generation's own."""
        if not self.live.is_dir():
            return {}
        tree = self.live.resolve()
        found = {str(path.relative_to(tree)): path for path in tree.rglob("*") if path.is_file()}
        found.pop(GENERATION_FILE, None)
        return found

    def live_generation(self) -> int:
        """Return the number of the tree that `live` points at; 0 when there is none."""
        try:
            return int(self.live.readlink().name)
        except (OSError, ValueError):
            return 0

    def stage(self, generation: int, state: State) -> Path:
        """Write the complete tree of one generation under a temporary name."""
        staged = self.trees / f"{generation:06d}.staged"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True, mode=0o755)
        for name, source in self.wanted(state).items():
            target = staged / name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            facts = source.stat()
            write_synced(target, source.read_bytes(), facts.st_mode & 0o777)
            os.chown(target, facts.st_uid, facts.st_gid)
        line = f'map "" $airlift_generation {{ default "{generation}"; }}\n'
        line += f'map "" $airlift_colour {{ default "{state.active}"; }}\n'
        write_synced(staged / GENERATION_FILE, line.encode(), 0o644)
        for directory in (staged, *(path for path in staged.rglob("*") if path.is_dir())):
            sync_directory(directory)
        return staged

    def test(self, tree: Path) -> None:
        """Let the very Nginx that will serve the tree judge it, in a container of its own."""
        result = engine(
            "run", "--rm", "--pull", "never", "--network", "none", "--read-only",
            "--user", self.settings.user, "--cap-drop", "ALL",
            "--security-opt", "no-new-privileges", "--log-driver", "none",
            "--tmpfs", "/tmp:mode=1777",  # noqa: S108
            "--volume", f"{tree}:/etc/nginx/live:ro", "--entrypoint", "nginx", self.settings.image,
            "-t", "-q", "-e", "stderr", "-c", "/etc/nginx/live/nginx.conf",
        )  # fmt: skip
        if result.returncode != 0:
            raise SwapError(f"Nginx refuses the new configuration: {result.stderr.strip()}")

    def point(self, tree: Path) -> None:
        """Make `live` point at a tree, in one step that a power cut cannot split."""
        link = self.live.with_name("live.new")
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(tree.relative_to(self.settings.root))
        link.rename(self.live)
        sync_directory(self.settings.root)

    def running(self) -> bool:
        """Tell whether the Nginx container runs."""
        shown = engine("inspect", "--format", "{{.State.Running}}", self.settings.container)
        return shown.returncode == 0 and shown.stdout.strip() == "true"

    def answered(self) -> int | None:
        """Ask Nginx for its generation on a fresh connection; None when it does not answer."""
        connection = http.client.HTTPConnection(
            self.settings.probe_address, self.settings.probe_port, timeout=2
        )
        try:
            connection.request("GET", "/_swap/gen", headers={"Connection": "close"})
            response = connection.getresponse()
            return int(response.read(16)) if response.status == 200 else None
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def serves(self, generation: int, in_a_row: int = 5) -> bool:
        """Wait until fresh connections are answered by one generation only."""
        deadline = time.monotonic() + self.settings.reload_timeout
        good = 0
        while good < in_a_row:
            if self.answered() == generation:
                good += 1
                continue
            good = 0
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def reload(self, generation: int) -> None:
        """Tell Nginx to reload and believe only what it then serves."""
        sent = engine("kill", "--signal", "HUP", self.settings.container)
        if sent.returncode != 0:
            raise SwapError(f"cannot signal {self.settings.container}: {sent.stderr.strip()}")
        if not self.serves(generation):
            said = engine("logs", "--tail", "5", self.settings.container).stderr.strip()
            raise SwapError(f"Nginx did not take generation {generation} into service: {said}")

    def prune(self) -> None:
        """Remove trees that are neither live nor among the last few, and leftovers."""
        live = self.live_generation()
        kept = sorted(path.name for path in self.trees.iterdir() if path.name.isdigit())
        keep = {f"{live:06d}", *kept[-self.settings.keep_trees :]}
        for path in self.trees.iterdir():
            if path.name not in keep:
                shutil.rmtree(path)


def fingerprint(files: dict[str, Path]) -> str:
    """Return one hash over names, modes, owners and contents."""
    total = hashlib.sha256()
    for name in sorted(files):
        facts = files[name].stat()
        head = f"{name}\0{facts.st_mode & 0o777:o}\0{facts.st_uid}\0".encode()
        total.update(head + hashlib.sha256(files[name].read_bytes()).digest())
    return total.hexdigest()


def put_in_place(edge: Edge, state: State) -> State:
    """Make the wanted configuration the live tree and Nginx serve it; undo both if it does not."""
    previous = edge.live.resolve() if edge.live.is_symlink() else None
    before = edge.live_generation()
    generation = max(before, state.generation) + 1
    staged = edge.stage(generation, state)
    edge.test(staged)
    tree = staged.with_name(f"{generation:06d}")
    shutil.rmtree(tree, ignore_errors=True)
    staged.rename(tree)
    sync_directory(edge.trees)
    edge.point(tree)
    result = dataclasses.replace(state, generation=generation)
    if edge.running():
        try:
            edge.reload(generation)
        except SwapError as error:
            if previous is None:
                raise
            edge.point(previous)
            engine("kill", "--signal", "HUP", edge.settings.container)
            raise SwapError(f"{error}; generation {before} is back in service") from error
    result.save(edge.settings.state_file)
    edge.prune()
    return result


def apply(edge: Edge, arguments: argparse.Namespace) -> dict[str, Any]:
    """Bring the wanted configuration into service; the active colour stays what it is."""
    held = State.load(edge.settings.state_file)
    state = held or State(COLOURS[0], None, arguments.release, arguments.serial, 0, now())
    if held and (held.release, held.serial) != (arguments.release, arguments.serial):
        raise SwapError(
            f"this site serves release {held.release} (serial {held.serial}), not "
            f"{arguments.release} (serial {arguments.serial}): a release changes by upgrade or "
            "rollback, never by install"
        )
    live = edge.live_generation()
    changed, why = True, "the configuration differs"
    if live and fingerprint(edge.wanted(state)) == fingerprint(edge.served()):
        # An earlier run may have ended between the rename and the reload.
        changed = edge.running() and edge.answered() not in {None, live}
        why = "the live tree was not in service yet" if changed else "nothing to do"
        if changed:
            edge.reload(live)
        if held is None or held.generation != live:
            state = dataclasses.replace(state, generation=live)
            state.save(edge.settings.state_file)
    else:
        state = put_in_place(edge, state)
    return {"changed": changed, "why": why, **dataclasses.asdict(state)}


def verify(edge: Edge) -> dict[str, Any]:
    """Prove that Nginx serves the live tree."""
    live = edge.live_generation()
    if not edge.serves(live):
        said = engine("logs", "--tail", "5", edge.settings.container).stderr.strip()
        raise SwapError(f"Nginx answers generation {edge.answered()}, not {live}: {said}")
    return {"changed": False, "generation": live}


def show(edge: Edge) -> dict[str, Any]:
    """Return the recorded state and what is really served."""
    state = State.load(edge.settings.state_file)
    return {
        "installed": state is not None,
        **(dataclasses.asdict(state) if state else {}),
        "live_generation": edge.live_generation(),
        "served_generation": edge.answered(),
    }


def fail(message: str) -> NoReturn:
    """Say what went wrong and end."""
    sys.exit(f"airlift-swap: {message}")


def main() -> None:
    """Command line of the agent."""
    parser = argparse.ArgumentParser(
        prog="airlift-swap", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    commands = parser.add_subparsers(dest="command", required=True)
    wanted = commands.add_parser("apply", help="put the wanted configuration into service")
    wanted.add_argument("--release", required=True)
    wanted.add_argument("--serial", required=True, type=int)
    commands.add_parser("verify", help="prove that Nginx serves the live configuration")
    commands.add_parser("show", help="what is recorded and what is served")
    arguments = parser.parse_args()
    try:
        edge = Edge(Settings.load(arguments.settings))
        if arguments.command == "show":
            answer = show(edge)
        else:
            with exclusive(edge.settings):
                answer = apply(edge, arguments) if arguments.command == "apply" else verify(edge)
    except SwapError as error:
        fail(str(error))
    print(json.dumps(answer, sort_keys=True))


if __name__ == "__main__":
    main()
