"""The trees on disk and the Nginx container that serves one of them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Collection
from pathlib import Path

from swap_agent import drained
from swap_agent.replicas import downs, marked
from swap_agent.state import NoRoomError, Settings, State, SwapError, sync_directory, write_synced

GENERATION_FILE = "generation.conf"
UPSTREAM_FILE = "upstream.conf"


def engine(*arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run the engine's command line and return its result."""
    try:
        return subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError as error:
        raise SwapError("docker is not installed on this host") from error
    except subprocess.TimeoutExpired as error:
        raise SwapError(f"docker {arguments[0]} took longer than {timeout:.0f} s") from error


def started(pid: int) -> str:
    """Return when a process was started, in ticks since boot; empty when it is gone."""
    try:
        # The name before it may hold blanks and brackets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


class Edge:
    """The trees on disk and the Nginx container that serves one of them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.desired = settings.root / "desired"
        self.trees = settings.root / "trees"
        self.live = settings.root / "live"

    def wanted(self, state: State) -> dict[str, Path]:
        """Return the files of the tree that this state needs, by their path in it."""
        files = {name: self.desired / name for name in self.settings.files}
        variant = state.active if state.standby is None else f"{state.active}-{state.standby}"
        files[UPSTREAM_FILE] = self.desired / "upstreams" / f"{variant}.conf"
        missing = [str(path) for path in files.values() if not path.is_file()]
        if missing:
            raise SwapError(f"missing in the wanted configuration: {', '.join(missing)}")
        return files

    def drained(self) -> set[str]:
        """Return the hosts that an operator has taken out."""
        return set(drained.load(self.settings))

    def served(self) -> dict[str, Path]:
        """Return the files of the live tree, without the generation's own."""
        if not self.live.is_dir():
            return {}
        return content(self.live.resolve())

    def live_generation(self) -> int:
        """Return the number of the tree that `live` points at; 0 when there is none."""
        try:
            return int(self.live.readlink().name)
        except (OSError, ValueError):
            return 0

    def stage(self, generation: int, state: State, out: Collection[str] | None = None) -> Path:
        """Write the complete tree of one generation under a temporary name.

        `out` names the hosts to leave out; by default those that are recorded as drained.
        """
        hosts = self.drained() if out is None else out
        staged = self.trees / f"{generation:06d}.staged"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True, mode=0o755)
        for name, source in self.wanted(state).items():
            target = staged / name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            facts = source.stat()
            body = source.read_bytes()
            if name == UPSTREAM_FILE:
                # A replica that is out stays out: the mark is the watch's, not the generation's.
                text = drained.without(body.decode(), hosts)
                body = marked(text, self.out()).encode()
            write_synced(target, body, facts.st_mode & 0o777)
            os.chown(target, facts.st_uid, facts.st_gid)
        line = f'map "" $airlift_generation {{ default "{generation}"; }}\n'
        line += f'map "" $airlift_colour {{ default "{state.active}"; }}\n'
        write_synced(staged / GENERATION_FILE, line.encode(), 0o644)
        for directory in (staged, *(path for path in staged.rglob("*") if path.is_dir())):
            sync_directory(directory)
        return staged

    def upstream(self) -> str:
        """Return the live upstream file; empty when there is none."""
        try:
            return (self.live / UPSTREAM_FILE).read_text()
        except OSError:
            return ""

    def out(self) -> set[str]:
        """Return the addresses that are marked in the live tree: no request goes there."""
        return downs(self.upstream())

    def mark(self, out: Collection[str]) -> None:
        """Mark these servers in the live tree and no others; Nginx reads them after `hup`.

        No new generation and no `test` first: only the word `down` changes, and Nginx keeps its
        configuration if it cannot read a file.
        """
        path = self.live.resolve() / UPSTREAM_FILE
        before = path.read_text()
        after = marked(before, out)
        if after == before:
            return
        facts = path.stat()
        # Beside the trees: a file left by a power cut is then no part of a generation.
        staged = self.settings.root / "upstream.new"
        write_synced(staged, after.encode(), facts.st_mode & 0o777)
        os.chown(staged, facts.st_uid, facts.st_gid)
        staged.rename(path)
        sync_directory(path.parent)

    def test(self, tree: Path) -> None:
        """Test a tree with the very Nginx that will serve it, in a container of its own."""
        result = engine(
            "run", "--rm", "--pull", "never", "--network", "none", "--read-only",
            "--user", self.settings.user, "--cap-drop", "ALL",
            "--security-opt", "no-new-privileges", "--log-driver", "none",
            "--tmpfs", "/tmp:mode=1777",  # noqa: S108
            "--volume", f"{tree}:/etc/nginx/live:ro", "--entrypoint", "nginx", self.image(),
            "-t", "-q", "-e", "stderr", "-c", "/etc/nginx/live/nginx.conf",
        )  # fmt: skip
        said = result.stderr.strip()
        if result.returncode != 0 and "no space left on device" in said.lower():
            raise NoRoomError(
                f"the new configuration cannot be tested, the engine has no disk space: {said}"
            )
        if result.returncode != 0:
            raise SwapError(f"Nginx rejects the new configuration: {said}")

    def served_before(self, staged: Path) -> bool:
        """Return whether a kept tree has the same content, so that Nginx has tested it already."""
        asked = fingerprint(content(staged))
        kept = (path for path in self.trees.iterdir() if path.name.isdigit())
        return any(fingerprint(content(path)) == asked for path in kept)

    def point(self, tree: Path) -> None:
        """Make `live` point at a tree, in one step that a power cut cannot split."""
        link = self.live.with_name("live.new")
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(tree.relative_to(self.settings.root))
        link.rename(self.live)
        sync_directory(self.settings.root)

    def _container(self) -> tuple[bool, str]:
        shown = self._inspect("{{.State.Running}} {{.Image}}")
        running, _, image = shown.stdout.strip().partition(" ")
        return shown.returncode == 0 and running == "true", image

    def _inspect(self, form: str) -> subprocess.CompletedProcess[str]:
        return engine("inspect", "--format", form, self.settings.container)

    def _first_process(self) -> tuple[int, str]:
        """Return the pid of the container's first process, 0 for none, and its restart policy."""
        shown = self._inspect("{{.State.Pid}} {{.HostConfig.RestartPolicy.Name}}")
        pid, _, policy = shown.stdout.strip().partition(" ")
        return (int(pid) if pid.isdigit() else 0), policy

    def hup(self) -> None:
        """Send SIGHUP to Nginx.

        Not with `docker kill`: after any signal sent that way the engine treats the container as
        stopped by hand, and `unless-stopped` does not start it after a reboot.
        """
        pid, policy = self._first_process()
        if policy not in {"", "always"}:
            # Left by a release that did send signals through the engine.
            engine("update", "--restart", "always", self.settings.container)
        try:
            handle = os.pidfd_open(pid)
            try:
                # The handle stays with one process; check again whether that is Nginx's.
                if self._first_process()[0] != pid:
                    raise ProcessLookupError
                signal.pidfd_send_signal(handle, signal.SIGHUP)
            finally:
                os.close(handle)
        except (OSError, ValueError) as error:
            raise SwapError(
                f"cannot signal {self.settings.container}: it does not run, or has just ended; "
                f"see: docker ps --all --filter name={self.settings.container}"
            ) from error

    def running(self) -> bool:
        """Return whether the Nginx container runs."""
        return self._container()[0]

    def image(self) -> str:
        """Return the running image: a release may have another one, which install starts later."""
        running, image = self._container()
        return image if running else self.settings.image

    def answered(self) -> int | None:
        """Return Nginx's generation, read on a new connection; None when it does not answer."""
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
        """Wait until new connections are answered by one generation only."""
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
        """Reload Nginx and verify the result by what it then serves."""
        self.hup()
        if not self.serves(generation):
            said = engine("logs", "--tail", "5", self.settings.container).stderr.strip()
            raise SwapError(f"Nginx does not serve generation {generation}: {said}")

    def workers(self, *, retiring: bool = False) -> set[tuple[int, str]]:
        """Return the worker processes of Nginx as (pid, start time): a pid may be used again.

        With `retiring` only those that finish their requests after a reload.
        """
        kind = "nginx: worker process is shutting down" if retiring else "nginx: worker process"
        listed = engine("top", self.settings.container, "-eo", "pid,args")
        if listed.returncode != 0:
            raise SwapError(f"cannot list the processes of Nginx: {listed.stderr.strip()}")
        found = set()
        for line in listed.stdout.splitlines():
            number, _, command = line.strip().partition(" ")
            if number.isdigit() and kind in command:
                found.add((int(number), started(int(number))))
        return {(number, start) for number, start in found if start}

    def wait_until_gone(self, old: set[tuple[int, str]]) -> None:
        """Wait for the workers of the previous generation: they still serve open connections."""
        deadline = time.monotonic() + self.settings.drain_timeout
        while left := old & self.workers():
            if time.monotonic() > deadline:
                numbers = ", ".join(str(number) for number, _ in sorted(left))
                raise SwapError(
                    f"Nginx workers {numbers} of the previous generation still serve after "
                    f"{self.settings.drain_timeout:.0f} s; nothing may stop before they end"
                )
            time.sleep(0.2)

    def prune(self) -> None:
        """Remove trees that are neither live nor among the last few, and leftovers."""
        live = self.live_generation()
        kept = sorted(path.name for path in self.trees.iterdir() if path.name.isdigit())
        keep = {f"{live:06d}", *kept[-self.settings.keep_trees :]}
        for path in self.trees.iterdir():
            if path.name not in keep:
                shutil.rmtree(path)


def content(tree: Path) -> dict[str, Path]:
    """Return the files of a tree, without the generation's own."""
    found = {str(path.relative_to(tree)): path for path in tree.rglob("*") if path.is_file()}
    found.pop(GENERATION_FILE, None)
    return found


def fingerprint(files: dict[str, Path], out: Collection[str] = (), *, rights: bool = True) -> str:
    """Return one hash over names, modes, owners and contents, without the marks of replicas.

    `out` names the hosts that are drained, for a wanted configuration: it has all hosts. Without
    `rights` only over names and contents.
    """
    total = hashlib.sha256()
    for name in sorted(files):
        facts = files[name].stat()
        head = f"{name}\0{facts.st_mode & 0o777:o}\0{facts.st_uid}\0" if rights else f"{name}\0"
        body = files[name].read_bytes()
        if name == UPSTREAM_FILE:
            body = marked(drained.without(body.decode(), out), ()).encode()
        total.update(head.encode() + hashlib.sha256(body).digest())
    return total.hexdigest()
