"""A jump host with stand-ins for the importer and ansible-playbook, controlled by a file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[3]
#: Variables to keep: other tools write to the environment, too.
_CLEAN = ("PATH", "HOME", "LANG")

_IMPORTER = """
import json, sys
bundle = sys.argv[sys.argv.index("--home") + 2]
world = json.load(open(WORLD))
with open(CALLS, "a") as calls:
    calls.write("import " + " ".join(sys.argv[sys.argv.index("--home"):]) + chr(10))
print("verifying", file=sys.stderr)
if world["refuse"]:
    error = {"kind": "altered", "exit_code": 12, "what": world["refuse"], "where": bundle,
             "fix": "copy the bundle again"}
    print(json.dumps({"ok": False, "command": "import", "error": error}))
    sys.exit(12)
version = json.load(open(bundle))["version"]
known = version in world["imported"]
world["imported"] = [*world["imported"], version]
json.dump(world, open(WORLD, "w"))
print(json.dumps({"ok": True, "version": version, "serial": 10, "already_imported": known}))
"""
_PLAYBOOK = """
import json, os, signal, sys, time
verb = next(word for word in sys.argv if word.endswith(".yml")).split("/")[-1][:-4]
site = sys.argv[sys.argv.index("-i") + 1]
world = json.load(open(WORLD))
with open(CALLS, "a") as calls:
    calls.write(" ".join([verb, *sys.argv[sys.argv.index("--vault-id") + 3:]]) + chr(10))
print("Lock     edge-1     0.1 s", flush=True)
if verb in world["hang"]:
    print("Images   app-1     0.1 s", flush=True)
    time.sleep(60)
new = world["imported"][-1]
if verb == "upgrade" and "--check" not in sys.argv and verb not in world["fail"]:
    if world["serves"] != new:
        world["previous"], world["serves"] = world["serves"], new
if verb == "rollback" and verb not in world["fail"]:
    world["serves"] = world["previous"]
json.dump(world, open(WORLD, "w"))
if verb + ", late" in world["hang"] and "--check" not in sys.argv:
    print("The switch   edge-1   0.1 s", flush=True)
    time.sleep(60)
if verb == "status" and not world["silent"]:
    serves = world["serves"]
    verdict, sentence = world["status"].get(serves, ["ok", "everything is as it should be"])
    report = {"verdict": verdict, "sentence": "Site acme runs " + serves + ": " + sentence,
              "next": world["next"], "release": serves, "active": "blue"}
    json.dump(report, open(site + "/.airlift/status.json", "w"))
if verb == "preflight" and world["findings"]:
    json.dump({"errors": world["findings"]}, open(site + "/.airlift/preflight.json", "w"))
found = world["fail"].get(verb)
if verb == "smoke" and found is None:
    found = world["smoke"].get(world["serves"])
if found:
    print("failed: [edge-1] something that a rescue answers")
    print("failed: [edge-1 -> app-1] " + found)
    print("and more lines")
    print(chr(10) + "0 changed, 1 failed (edge-1), 0.1 s")
    sys.exit(2)
"""


class Result(NamedTuple):
    """The result of a deployment."""

    code: int
    output: str
    error: str
    values: dict[str, str]
    summary: str


class JumpHost:
    """The runner's machine: Airlift's home, a site, a bundle."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "airlift"
        self.site = self.home / "sites" / "acme"
        self.calls_file = root / "calls"
        self.calls_file.touch()
        programs = self.home / "current" / "venv" / "bin"
        programs.mkdir(parents=True)
        for name, text in (("python", _IMPORTER), ("ansible-playbook", _PLAYBOOK)):
            head = f"#!{sys.executable}\nWORLD = {str(root / 'world')!r}\n"
            program(programs / name, f"{head}CALLS = {str(self.calls_file)!r}\n{text}")
        (self.site / ".airlift" / "tls").mkdir(parents=True)
        (self.site / ".airlift" / "tls" / "ca.pem").touch()
        (self.site / "hosts.yml").write_text("all: {}\n")
        self.password = root / "password"
        self.password.write_text("the vault's password\n")
        self.password.chmod(0o600)
        self.wish(
            serves="1.0.0",
            previous="0.9.0",
            imported=["1.0.0"],
            refuse="",
            fail={},
            smoke={},
            status={},
            hang=[],
            silent=False,
            findings=[],
            next="playbooks/status.yml",
        )
        self.bundle = self.make_bundle("1.1.0")

    def make_bundle(self, version: str) -> Path:
        """Write a bundle to the machine."""
        path = self.root / "dist" / f"airlift-{version}-amd64.tar"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"version": version}))
        return path

    def wish(self, **wishes: Any) -> None:
        """Change how the stand-ins behave from now on."""
        path = self.root / "world"
        world = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**world, **wishes}))

    @property
    def serves(self) -> str:
        """Return the active release."""
        return str(json.loads((self.root / "world").read_text())["serves"])

    @property
    def calls(self) -> list[str]:
        """Return the recorded calls, one per line."""
        return self.calls_file.read_text().splitlines()

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a runner."""
        return {
            **{name: os.environ[name] for name in _CLEAN if name in os.environ},
            "DEPLOY_HOME": str(self.home),
            "DEPLOY_SITE": str(self.site),
            "DEPLOY_VAULT_ID": f"acme@{self.password}",
            "DEPLOY_BUNDLE": str(self.bundle),
            "DEPLOY_SETTLE_SECONDS": "0",
            "GITHUB_STEP_SUMMARY": str(self.root / "summary.md"),
            "GITHUB_OUTPUT": str(self.root / "outputs"),
            **more,
        }

    def start(self, phase: str, **more: str) -> subprocess.Popen[str]:
        """Start a phase."""
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.deploy", phase],
            cwd=ROOT,
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def deploy(self, phase: str, **more: str) -> Result:
        """Run a phase to its end."""
        for name in ("outputs", "summary.md"):
            (self.root / name).unlink(missing_ok=True)
        with self.start(phase, **more) as process:
            output, error = process.communicate(timeout=60)
        return Result(process.returncode, output, error, self.values(), self.summary())

    def values(self) -> dict[str, str]:
        """Return the outputs for the pipeline."""
        path = self.root / "outputs"
        lines = path.read_text().splitlines() if path.exists() else []
        return dict(line.split("=", 1) for line in lines)

    def summary(self) -> str:
        """Return the pipeline's summary, with N for each duration."""
        path = self.root / "summary.md"
        return re.sub(r"\| \d+ \|", "| N |", path.read_text()) if path.exists() else ""


def program(path: Path, text: str) -> None:
    """Write an executable program."""
    path.write_text(text)
    path.chmod(0o755)
