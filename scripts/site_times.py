"""Install a site and run an operator's commands on it; measure times and count remote steps.

    python -P scripts/site_times.py CACHE HOSTS COMMAND ...

Benchmarks and `make soak-from` also run this file in an older tree. That tree is the current
directory, so this program uses only scripts that older trees have. CACHE holds keys and bundles.
HOSTS is `five`, the lab's own site, or a name of LAYOUTS. A COMMAND is a playbook, or `reinstall`,
which runs `install` again. The last line of output is JSON: for each command its seconds, its
changes, and the counts of scripts/remote_steps.py.
"""

from __future__ import annotations

import configparser
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path.cwd()))

from scripts.journey import INVENTORY, SITE, Journey, recap
from scripts.lab import ROOT

_COUNTER = Path(__file__).with_name("remote_steps.py")
_FOLDER = "/home/operator/steps"
#: The lab's machines and networks; each zone has a network with its name.
_LAB = yaml.safe_load((ROOT / "molecule/lab/vars.yml").read_text())
_ZONES = ("dmz", "app", "data", "monitor")
#: Zone: {host: last octet of its address}.
LAYOUTS: dict[str, dict[str, dict[str, int]]] = {
    # The lab's clients use this address of the edge.
    "one": {zone: {"edge-1": 10} for zone in _ZONES},
    "eight": {
        "dmz": {"edge-1": 10},
        "app": {f"app-{number}": 10 + number for number in range(1, 6)},
        "data": {"data-1": 10},
        "monitor": {"monitor-1": 10},
    },
}


def homes(layout: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Return the network and the address of each host: those of its first zone."""
    found: dict[str, dict[str, int]] = {}
    for zone, hosts in layout.items():
        for host, octet in hosts.items():
            found.setdefault(host, {zone: octet})
    return found


def machines(layout: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    """Return the lab's machines with a layout's hosts in place of its own."""
    around = [machine for machine in _LAB["lab_hosts"] if machine["kind"] != "host"]
    site = [{"name": host, "kind": "host", "addresses": it} for host, it in homes(layout).items()]
    return [*around, *site]


def inventory(layout: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Return a layout's hosts.yml: the lab's, with other hosts."""
    places = {
        host: f"{_LAB['lab_base']}.{_LAB['lab_networks'][network]}.{octet}"
        for host, home in homes(layout).items()
        for network, octet in home.items()
    }
    made = {
        zone: {"hosts": {host: {"ansible_host": places[host]} for host in hosts}}
        for zone, hosts in layout.items()
    }
    kept = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
    return made | {"all": kept["all"]}


@dataclass
class Times:
    """A site in the lab, and the operator's commands on it."""

    journey: Journey
    hosts: str

    def raise_site(self) -> None:
        """Build and carry this tree's release; prepare empty hosts and the site's inventory."""
        journey, layout = self.journey, LAYOUTS.get(self.hosts)
        if layout is not None:
            journey.lab.variables = ["-e", json.dumps({"lab_hosts": machines(layout)})]
        journey.lab.down()
        # One by one: `prepare` is newer than the older trees.
        journey.make_key()
        journey.build()
        journey.raise_lab()
        journey.carry()
        journey.check_by_hand()
        journey.bootstrap()
        journey.place_site()
        if layout is not None:
            text = yaml.safe_dump(inventory(layout), sort_keys=False)
            journey.lab.ssh(f"cat > {SITE}/hosts.yml", stdin=text)
        journey.lab.ssh(
            f"mkdir -p {_FOLDER} && cat > {_FOLDER}/remote_steps.py", stdin=_COUNTER.read_text()
        )

    def run(self, command: str) -> dict[str, Any]:
        """Run a command; return its seconds, its changes and its remote steps."""
        if command == "upgrade":
            self.journey.bring(patch="1.1.0")
        words = self.journey.playbook_command("install" if command == "reinstall" else command)
        settings = " ".join(f"{name}={value}" for name, value in counting().items())
        script = f"export {settings}; rm -f {_FOLDER}/counts; {words}"
        start = time.monotonic()
        done = self.journey.lab.ssh_stream(script, what=command)
        seconds = time.monotonic() - start
        counts = json.loads(self.journey.lab.ssh(f"tail -n 1 {_FOLDER}/counts").output)
        return {"seconds": seconds, "changed": recap(done.output).changed, **counts}


def counting() -> dict[str, str]:
    """Return the settings that add the counter to the callbacks of this tree's ansible.cfg."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read("ansible.cfg")
    defaults = settings["defaults"]
    return {
        "AIRLIFT_STEPS": f"{_FOLDER}/counts",
        "ANSIBLE_CALLBACK_PLUGINS": _added(defaults.get("callback_plugins", ""), ":", _FOLDER),
        "ANSIBLE_CALLBACKS_ENABLED": _added(
            defaults.get("callbacks_enabled", ""), ",", "remote_steps"
        ),
    }


def _added(value: str, separator: str, more: str) -> str:
    return separator.join(part for part in (*value.split(separator), more) if part)


def main() -> int:
    """Raise the site and run the commands; print the results last."""
    cache, hosts, *commands = sys.argv[1:]
    journey = Journey(listen=lambda line: print(line, flush=True))
    journey.cache = Path(cache)
    journey.dist = journey.cache / "dist"
    times = Times(journey, hosts)
    times.raise_site()
    print(json.dumps({command: times.run(command) for command in commands}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
