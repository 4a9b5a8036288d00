"""The outbound journey: from a source tree to a site that answers, one step per method.

The demo shows these steps, and the end-to-end tests check the lab between them. Every step
converges: if it runs again, it changes nothing. On the jump host, each step runs the documented
commands as the operator, logged in by SSH.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import ssl
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from bundle.builder.images import engine
from bundle.errors import Kind
from scripts.facts import Facts, JourneyError, documented, ended, recap
from scripts.lab import ROOT, CommandError, Done, Lab, stream
from scripts.load import Load, Options
from scripts.releases import source_tree
from scripts.shapes import DEFAULT, Shape
from scripts.shapes import load as load_shape

IDENTITY = "release@airlift.example"
STICK = "/media/usb"
HOME = "/opt/airlift"
SITE = f"{HOME}/sites/lab"
VAULT_PASSWORD = f"{HOME}/sites/lab.vault-password"
API_KEY = f"{HOME}/sites/lab.api-key"
EDGE = "https://172.30.1.10"
#: The certificate of the site's own authority, on the jump host.
SITE_CA = f"{SITE}/.airlift/tls/ca.pem"
#: Files and folders of the lab's inventory that become the site's.
INVENTORY = ROOT / "inventories" / "lab"

#: What the demo's job collects.
REVIEWS = """text,stars
"The delivery was quick and the support was friendly.",5
"It broke on the second day and nobody answered.",1
"It does what it says.",4
"""


class Journey:
    """The journey of one release into the lab's site."""

    def __init__(
        self,
        *,
        source: str = "auto",
        shape: Shape | None = None,
        listen: Callable[[str], None] | None = None,
    ) -> None:
        self.source = source
        self.listen = listen or (lambda _line: None)
        #: The hosts of the site; the lab may have more.
        self.shape = shape or load_shape()
        self.lab = Lab(shape=self.shape.name, listen=self.listen)
        self.facts = Facts()
        self.cache = ROOT / ".cache" / "demo"
        self.dist = self.cache / "dist"

    # ------------------------------------------------------------------ at the vendor
    def make_key(self) -> None:
        """Make the demo's signing key, and the list of allowed signers for the client."""
        self.cache.mkdir(parents=True, exist_ok=True)
        key = self.cache / "signing_key"
        if not key.exists():
            self._run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", IDENTITY, "-f", str(key)],
                what="making the demo's signing key",
            )
        public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
        line = f'{IDENTITY} namespaces="airlift-bundle" {public}\n'
        (self.cache / "allowed_signers").write_text(line)

    def release(self, tree: Path = ROOT) -> dict[str, Any]:
        """Return the release.yml of a tree."""
        found: dict[str, Any] = yaml.safe_load((tree / "bundle" / "release.yml").read_text())
        return found

    def build(
        self,
        *,
        patch: str = "",
        version: str = "",
        serial: int | None = None,
        since: Path | None = None,
    ) -> None:
        """Build and sign a bundle of this tree, or of this tree with a patch of tests/releases.

        With ``since`` it is a delta based on that bundle.
        """
        tree = source_tree(patch) if patch else ROOT
        version = version or self.release(tree)["version"]
        argv = [sys.executable, "-m", "bundle", "build", "--version", version]
        argv += ["--source", self.source, "--key", str(self.cache / "signing_key")]
        # The tree may have changes: only `make bundle` builds a release.
        argv += ["--allow-dirty", "--allow-absent", "all"]
        if serial is not None:
            argv += ["--serial", str(serial)]
        if since is not None:
            argv += ["--since", str(since)]
        argv += ["--identity", IDENTITY, "--output", str(self.dist)]
        stream(argv, what="the build", listen=self.listen, cwd=tree)
        # The name of a delta has the newest release that it is based on.
        made = self.dist.glob(f"airlift-{version}{'-since-*' if since else ''}-amd64.tar")
        self.read_bundle(max(made, key=lambda path: path.stat().st_mtime_ns))

    def read_bundle(self, path: Path) -> None:
        """Read size and manifest of a bundle into the facts."""
        self.facts.bundle = path
        self.facts.bundle_bytes = path.stat().st_size
        with tarfile.open(path) as archive:
            member = archive.extractfile("manifest.json")
            assert member is not None  # noqa: S101 - the build has checked it
            self.facts.manifest = json.load(member)

    # ------------------------------------------------------------------ on the way
    def raise_lab(self) -> None:
        """Raise the client's machines: empty hosts, networks, a jump host."""
        self.lab.up()

    def carry(self) -> None:
        """Copy the bundle to the USB drive, and the list of signers separately to the jump host."""
        bundle = self.facts.bundle
        for path in (bundle, bundle.with_name("SHA256SUMS"), bundle.with_name("SHA256SUMS.sig")):
            target = f"{STICK}/{path.name}"
            there = self.lab.console("jump", 'sha256sum "$1" || :', target).output.split()
            with path.open("rb") as file:
                if there[:1] == [hashlib.file_digest(file, "sha256").hexdigest()]:
                    self.listen(f"{path.name} is on the USB drive")
                    continue
                file.seek(0)
                self.listen(f"copying {path.name}")
                script = 'cat > "$1.partial" && sync "$1.partial" && mv "$1.partial" "$1"'
                argv = [*engine.docker(), "exec", "-i", "lab-jump", "sh", "-euc", script, "sh"]
                stream(
                    [*argv, target],
                    what="the copy to the USB drive",
                    listen=self.listen,
                    stdin=file,
                )
        signers = (self.cache / "allowed_signers").read_text()
        self.lab.ssh("cat > ~/allowed_signers", stdin=signers)

    def bring(self, *, patch: str, version: str = "", serial: int | None = None) -> None:
        """Build another release as a delta, carry it, and import it."""
        base = self.dist / f"airlift-{self.release()['version']}-amd64.tar"
        self.build(patch=patch, version=version, serial=serial, since=base)
        self.carry()
        self.bootstrap()

    # ------------------------------------------------------------------ on the jump host
    def settings(self) -> str:
        """Return the documented settings with this bundle's name in them."""
        text = documented("settings")
        return re.sub(r"airlift-[\w.+-]+-amd64\.tar", self.facts.bundle.name, text)

    def by_hand(self) -> tuple[str, str]:
        """Return the documented commands: the checks, and the import that follows them."""
        commands = documented("by hand")
        checks, _, last = commands.rstrip().rpartition("&&\n")
        if " import " not in last:
            message = "docs/TRUST.md: the last command `by hand` must be the import"
            raise JourneyError(message)
        return checks, last

    def check_by_hand(self) -> None:
        """Check signature and verifier with the tools of the OS, as docs/TRUST.md says."""
        self._on_jump(
            f"mkdir -p ~/check && cd ~/check\n{self.settings()}{self.by_hand()[0]}",
            what="the check by hand",
        )

    def bootstrap(self) -> None:
        """Import the bundle with the verifier that was just checked, or with the installed one."""
        version = self.facts.manifest["version"]
        known = self.lab.ssh(f"cat {HOME}/releases/{version}/manifest.json", check=False)
        if known.code == 0 and json.loads(known.output) == self.facts.manifest:
            self.listen(f"release {version} is imported already")
            return
        if self.lab.ssh(f"test -e {HOME}/current", check=False).code == 0:
            command = documented("by the installed verifier")
        else:
            command = f"cd ~/check\n{self.by_hand()[1]}"
        try:
            self._on_jump(self.settings() + command, what="the import")
        except CommandError as error:
            if error.code != Kind.CONFLICT.exit_code:
                raise
            message = (
                "The lab has a site of another tree with the same version, and a release is never "
                "changed.\nRemove the site and start again: make demo-down && make demo"
            )
            raise JourneyError(message) from error

    def place_site(self) -> None:
        """Copy the site's inventory to the jump host, and make its vault there."""
        files = {path.relative_to(INVENTORY): path.read_text() for path in INVENTORY.rglob("*.yml")}
        if self.shape.name != DEFAULT:
            files[Path("hosts.yml")] = yaml.safe_dump(self.shape.inventory(), sort_keys=False)
            # Ansible reads it after main.yml.
            settings = yaml.safe_dump(dict(self.shape.settings), sort_keys=False)
            files[Path("group_vars/all/shape.yml")] = settings
        for name, text in sorted(files.items()):
            target = f"{SITE}/{name}"
            self.lab.ssh(f'mkdir -p "$(dirname {target})" && cat > {target}', stdin=text)
        maker = (ROOT / "scripts" / "site_vault.py").read_text()
        self.lab.ssh(f"mkdir -p {SITE}/group_vars/all && chmod 700 {HOME}/sites {SITE}")
        made = self.lab.ssh(
            f"cd {HOME}/current && venv/bin/python - {SITE} {VAULT_PASSWORD} {API_KEY}", stdin=maker
        )
        self.listen(made.output.strip())

    def playbook_command(self, verb: str, *options: str, release: str = "") -> str:
        """Return the operator's command to run a playbook of the current, or another, release."""
        place = f"{HOME}/releases/{release}" if release else f"{HOME}/current"
        words = ["./venv/bin/ansible-playbook", "-i", SITE, "--vault-id", f"lab@{VAULT_PASSWORD}"]
        return f"cd {place} && {' '.join([*words, f'playbooks/{verb}.yml', *options])}"

    def play(self, verb: str, *options: str, check: bool = True, release: str = "") -> Done:
        """Run a playbook on the jump host."""
        command = self.playbook_command(verb, *options, release=release)
        done = self.lab.ssh_stream(command, what=f"playbooks/{verb}.yml", check=check)
        if ended(done.output):  # a test may have killed it
            self.facts.changed[verb] = recap(done.output).changed
        return done

    def preflight(self) -> None:
        """Run the preflight checks, which change nothing."""
        self.play("preflight")

    def prepare(self) -> None:
        """Do all that comes before an install: empty hosts, an import, the site described."""
        self.make_key()
        self.build()
        self.raise_lab()
        self.carry()
        self.check_by_hand()
        self.bootstrap()
        self.place_site()

    def install(self, *options: str) -> None:
        """Install or repair the site, and count the bytes that each host receives."""
        shown = self.lab.console("edge-1", "airlift-swap show", check=False)
        serves = json.loads(shown.output).get("release", "") if shown.code == 0 else ""
        hosts = self.hosts()
        before = {host: self.lab.received(host) for host in hosts}
        self.play("install", *options, release=serves)
        self.facts.received = {host: self.lab.received(host) - before[host] for host in hosts}

    def status(self) -> Done:
        """Check the state of the site."""
        return self.play("status")

    def hosts(self) -> list[str]:
        """Return the site's hosts, in the inventory's order."""
        return self.shape.hosts

    # ------------------------------------------------------------------ as a client
    def fetch_access(self) -> None:
        """Copy the site's certificate authority and the demo's API key to this machine."""
        ca = self.lab.ssh(f"cat {SITE_CA}").output
        (self.cache / "ca.pem").write_text(ca)
        key = self.cache / "api-key"
        key.touch(mode=0o600)
        key.write_text(self.lab.ssh(f"cat {API_KEY}").output.strip())

    def limited_key(self) -> str:
        """Return the key that is limited to a few predictions per minute."""
        return self.lab.ssh(f"cat {API_KEY}-limited").output.strip()

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: bool = True,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], Any]:
        """Send one request through Nginx; return status, headers and the JSON or text answer."""
        context = ssl.create_default_context(cafile=str(self.cache / "ca.pem"))
        request = urllib.request.Request(  # noqa: S310 - the lab's edge
            EDGE + path, method=method, headers=headers or {}
        )
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if key:
            request.add_header("X-API-Key", (self.cache / "api-key").read_text())
        try:
            with urllib.request.urlopen(request, timeout=20, context=context) as answer:  # noqa: S310
                return answer.status, dict(answer.headers), _decode(answer.read())
        except urllib.error.HTTPError as answer:
            return answer.code, dict(answer.headers), _decode(answer.read())

    def load(self, rate: float, *, url: str = EDGE, **options: Any) -> Load:
        """Return a load of clients near and far, for a ``with`` block."""
        key = (self.cache / "api-key").read_text().strip()
        return Load(Options(url, ca=self.cache / "ca.pem", key=key, rate=rate, **options))

    def smoke(self) -> None:
        """Send a few requests that need every part of the site."""
        self.fetch_access()
        for method, path, body, wanted in (
            ("GET", "/health", None, 200),
            ("GET", "/health/ready", None, 200),
            ("POST", "/predict", {"text": "what a wonderful day"}, 200),
            ("POST", "/items", {"name": "demo"}, 201),
            ("GET", "/items", None, 200),
        ):
            self.listen(f"{method} {path}")
            status, _, answer = self.request(method, path, body)
            if status != wanted:
                message = f"{method} {path} answered {status}, not {wanted}: {answer}"
                raise JourneyError(message)
        status, _, _ = self.request("POST", "/predict", {"text": "no key"}, key=False)
        if status != 401:
            message = f"POST /predict without a key answered {status}, not 401"
            raise JourneyError(message)
        self.run_job()

    def feed(self) -> None:
        """Put a file into the inbox of the app hosts, as the client's systems do."""
        for host in self.shape.zones["app"]:
            script = 'cat > "$1.partial" && chmod 644 "$1.partial" && mv "$1.partial" "$1"'
            inbox = "/var/lib/airlift/sources/inbox/demo.csv"
            self.lab.console(host, script, inbox, stdin=REVIEWS)

    def result_of(self, job: str, *, seconds: float = 60) -> tuple[int, Any]:
        """Wait until a job has ended; return status and answer of its result."""
        path = f"/api/v1/jobs/result/{job}"
        deadline = time.monotonic() + seconds
        while (found := self.request("GET", path))[0] == 202:
            if time.monotonic() > deadline:
                message = f"job {job} has no result after {seconds:.0f} s: {found[2]}"
                raise JourneyError(message)
            time.sleep(0.3)
        return found[0], found[2]

    def run_job(self) -> Any:
        """Have a worker collect the file and return what it found."""
        self.feed()
        self.listen("POST /api/v1/jobs/trigger")
        job = {"source_type": "file", "config": {"root": "inbox", "path": "demo.csv"}}
        status, _, answer = self.request("POST", "/api/v1/jobs/trigger", job)
        if status != 202:
            message = f"POST /api/v1/jobs/trigger answered {status}: {answer}"
            raise JourneyError(message)
        status, answer = self.result_of(answer["job_id"])
        if status != 200:
            message = f"the job's result answered {status}: {answer}"
            raise JourneyError(message)
        return answer

    # ------------------------------------------------------------------ helpers
    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record the time of a step."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.facts.seconds[name] = time.monotonic() - start

    def _run(self, argv: list[str], *, what: str) -> Done:
        return stream(argv, what=what, listen=self.listen)

    def _on_jump(self, script: str, *, what: str) -> Done:
        return self.lab.ssh_stream(script, what=what)


def _decode(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


__all__ = ["CommandError", "Facts", "Journey", "JourneyError", "documented", "ended", "recap"]
