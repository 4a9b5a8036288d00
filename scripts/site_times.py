"""Install a site and run an operator's commands on it; measure times and count remote steps.

    python -P scripts/site_times.py CACHE HOSTS COMMAND ...

Benchmarks and `make soak-from` also run this file in an older tree. That tree is the current
directory, so this program uses only scripts that older trees have. CACHE holds keys and bundles.
HOSTS is `five`, the lab's own site, or in this tree another name of molecule/lab/shapes. A COMMAND
is a playbook, or `reinstall`, which runs `install` again. The last line of output is JSON: for each
command its seconds, its changes, and the counts of scripts/remote_steps.py.
"""

from __future__ import annotations

import configparser
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))

from scripts.journey import Journey, recap

_COUNTER = Path(__file__).with_name("remote_steps.py")
_FOLDER = "/home/operator/steps"


@dataclass
class Times:
    """A site in the lab, and the operator's commands on it."""

    journey: Journey

    def raise_site(self) -> None:
        """Build and carry this tree's release; prepare empty hosts and the site's inventory."""
        journey = self.journey
        journey.lab.down()
        # One by one: `prepare` is newer than the older trees.
        journey.make_key()
        journey.build()
        journey.raise_lab()
        journey.carry()
        journey.check_by_hand()
        journey.bootstrap()
        journey.place_site()
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


def _journey(hosts: str) -> Journey:
    def listen(line: str) -> None:
        print(line, flush=True)

    if hosts == "five":
        return Journey(listen=listen)
    # Older trees have no other shape, nor this module.
    from scripts.shapes import load  # noqa: PLC0415

    return Journey(shape=load(hosts), listen=listen)


def main() -> int:
    """Raise the site and run the commands; print the results last."""
    cache, hosts, *commands = sys.argv[1:]
    journey = _journey(hosts)
    journey.cache = Path(cache)
    journey.dist = journey.cache / "dist"
    times = Times(journey)
    times.raise_site()
    print(json.dumps({command: times.run(command) for command in commands}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
