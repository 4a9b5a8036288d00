"""The site on one host: an operator's commands on this machine, and clients of two networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.facts import recap
from scripts.lab import ROOT, Lab
from scripts.load import Load, Options

SCENARIO = ROOT / "molecule/single"
RELEASES = Path(os.environ["AIRLIFT_RELEASES"])
CA = RELEASES / "state/tls/ca.pem"
URL = "https://172.27.1.10"
#: molecule/single/inventory has its hash.
KEY = "not-a-secret-of-any-site-but-a-key"
FIRST, SECOND = (RELEASES / "current").readlink().name, "1.1.0"

#: Sends the requests on its standard input, one after the other; prints status, headers and answer.
_CLIENT = """
import http.client, json, ssl, sys
asked = json.load(sys.stdin)
context = ssl.create_default_context(cadata=asked["ca"])
connection = http.client.HTTPSConnection(asked["host"], timeout=20, context=context)
answers = []
for method, path, body, headers in asked["requests"]:
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    answers.append([answer.status, headers, answer.read().decode()])
print(json.dumps(answers))
"""

Answer = tuple[int, dict[str, str], str]


@dataclass(frozen=True)
class Site:
    """The site, its host and a client in another network."""

    lab: Lab

    def play(self, verb: str, *options: str, release: str) -> str:
        """Run a playbook of a release, as an operator on a jump host does; return its output."""
        folder = RELEASES / release
        done = subprocess.run(
            ["ansible-playbook", "-i", f"{SCENARIO}/inventory", f"playbooks/{verb}.yml", *options],
            cwd=folder,
            env={
                **os.environ,
                "AIRLIFT_RELEASE": release,
                "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
                # Molecule's own runs have another output, see molecule.yml.
                "ANSIBLE_STDOUT_CALLBACK": "airlift",
                "NO_COLOR": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert recap(done.stdout).failed == 0
        return done.stdout

    def send(self, *requests: tuple[str, str, object], key: str = "", near: bool = False) -> Any:
        """Send requests from the client in the other network, or from this machine if `near`."""
        headers = {"X-API-Key": key} if key else {}
        wanted = [[*one, headers] for one in requests]
        asked = {"host": URL.rpartition("/")[2], "ca": CA.read_text(), "requests": wanted}
        if near:
            argv = [sys.executable, "-c", _CLIENT]
            done = subprocess.run(
                argv, input=json.dumps(asked), capture_output=True, text=True, check=True
            )
            return json.loads(done.stdout)
        script = 'exec python3 -c "$1"'
        said = self.lab.console("client", script, _CLIENT, stdin=json.dumps(asked))
        return json.loads(said.output)

    def load(self, rate: float) -> Load:
        """Return a load of clients near and far, for a ``with`` block."""
        return Load(Options(URL, ca=CA, key=KEY, rate=rate))

    def shown(self) -> dict[str, Any]:
        """Return what the agent on the edge reports."""
        found: dict[str, Any] = json.loads(self.lab.console("site-1", "airlift-swap show").output)
        return found

    def peer_of(self, request_id: str) -> str:
        """Return the address by which the service's log knows a request's client."""
        script = 'docker logs "airlift-app-$1" 2>&1 | grep -F "\\"request_id\\":\\"$2\\""'
        found = self.lab.console("site-1", script, self.shown()["active"], request_id).output
        return str(json.loads(found)["peer"])

    def until_well(self, release: str, seconds: float = 90) -> None:
        """Wait until status finds nothing wrong: health checks take their time after a start."""
        deadline = time.monotonic() + seconds
        while True:
            self.play("status", release=release)
            report = json.loads((RELEASES / "state/status.json").read_text())
            if report["verdict"] == "ok":
                return
            assert time.monotonic() < deadline, report["problems"]
            time.sleep(3)


@pytest.fixture(scope="session")
def site() -> Site:
    """The installed site."""
    return Site(Lab(prefix="one"))
