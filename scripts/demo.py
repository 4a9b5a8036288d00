"""Run the whole journey on this machine, with an upgrade and a rollback, step by step.

``make demo`` runs it and can be repeated: finished steps are skipped. ``make demo-down``
(``--down``) removes it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bundle.core.text import size, table
from scripts.journey import EDGE, CommandError, Journey, JourneyError
from scripts.lab import ROOT
from scripts.roundtrip import RoundTrip, parts
from scripts.screen import Screen

KEPT_LOGS = 10


@dataclass(frozen=True)
class Step:
    """One line of the demo: its title, its action, and its result."""

    name: str
    title: str
    run: Callable[[], object]
    summary: Callable[[], str] = lambda: ""


def steps_of(journey: Journey, trip: RoundTrip) -> list[Step]:
    """Return the steps of the demo, in order."""
    facts = journey.facts

    def build() -> None:
        journey.make_key()
        journey.build()

    def changed(verb: str) -> Callable[[], str]:
        return lambda: f"{facts.changed[verb]} changed"

    def contents() -> str:
        return f"{size(facts.bundle_bytes)}, {len(facts.manifest['components'])} images"

    hosts = f"{len(journey.hosts())} hosts, a jump host, a router"
    return [
        Step("build", "Build and sign the bundle", build, contents),
        Step("lab", "Raise the client's machines", journey.raise_lab, lambda: hosts),
        Step("carry", "Carry the USB drive to the jump host", journey.carry),
        Step("check", "Check by hand, nothing unpacked", journey.check_by_hand),
        Step("import", "Import into the jump host", journey.bootstrap),
        Step("site", "Describe the site, fill its vault", journey.place_site),
        Step("preflight", "Preflight", journey.preflight),
        Step("install", "Install", journey.install, changed("install")),
        Step("status", "Status", journey.status),
        Step("smoke", "Test the site through Nginx", journey.smoke),
        *(Step(*part) for part in parts(trip)),
        Step("look", "Status", journey.status),
    ]


def result(journey: Journey, trip: RoundTrip) -> str:
    """Return the table at the end."""
    facts = journey.facts
    used, stored, used_bytes, stored_bytes = facts.layers()
    manifest = facts.manifest
    rows = [
        ("release", f"{manifest['version']}, serial {manifest['serial']}"),
        ("bundle", f"{size(facts.bundle_bytes)} in {len(manifest['members'])} members"),
        ("images", f"{len(manifest['components'])}, source: {manifest['image_source']}"),
        (
            "layers",
            f"{used} in use, {stored} in the bundle, where each is once: "
            f"{size(stored_bytes)} instead of {size(used_bytes)}",
        ),
    ]
    for name, absent in manifest["absent"].items():
        rows.append((f"no {name}", absent["reason"].partition(", and")[0]))
    rows += [(f"to {host}", size(count)) for host, count in facts.received.items()]
    for name, seconds in facts.seconds.items():
        rows.append((f"time: {name}", f"{seconds:7.1f} s"))
    rows.append(("time: all", f"{sum(facts.seconds.values()):7.1f} s"))
    return table(rows) + "\n\n" + table(trip.rows())


def next_steps(journey: Journey) -> str:
    """Return what a person can do with the site now."""
    folder = (journey.cache).relative_to(ROOT)
    ssh = f"ssh -F {journey.lab.cache.relative_to(ROOT)}/ssh_config"
    return f"""
The site answers at {EDGE} (it has no way out; this machine has a way in):
  curl --cacert {folder}/ca.pem {EDGE}/health/ready
  curl --cacert {folder}/ca.pem -H "X-API-Key: $(cat {folder}/api-key)" \\
       -H 'Content-Type: application/json' -d '{{"text": "what a day"}}' {EDGE}/predict
  {EDGE}/docs   the API's documentation

Prometheus, through the jump host, then at http://127.0.0.1:9090:
  {ssh} -N -L 9090:172.30.4.10:9090 jump

Next:
  make lab-shell HOST=lab-jump      be the operator:
    {journey.playbook_command("status").replace(" && ", chr(10) + "    ")}
    and likewise upgrade.yml and rollback.yml: docs/OPERATIONS.md
  make lab-shell HOST=lab-app-1     be a host: docker kill airlift-app-blue, and it restarts
  make demo                         repeat it: install changes nothing
  make demo-down                    remove everything"""


def up(source: str) -> int:
    """Run the journey; return the exit code."""
    logs = ROOT / ".cache" / "demo" / "log"
    logs.mkdir(parents=True, exist_ok=True)
    for old in sorted(logs.glob("*.log"))[: -KEPT_LOGS + 1]:
        old.unlink()
    log = logs / f"{time.strftime('%Y%m%d-%H%M%S')}.log"
    with log.open("w") as file:
        screen = Screen(file)
        journey = Journey(source=source, listen=screen.listen)
        trip = RoundTrip(journey)
        steps = steps_of(journey, trip)
        screen.title(f"Airlift: from this tree to a site behind an air gap (log: {_short(log)})")
        for number, step in enumerate(steps, 1):
            screen.start(f"{number:2}/{len(steps)}  {step.title}")
            try:
                with journey.timed(step.name):
                    step.run()
            except (CommandError, JourneyError, OSError) as error:
                trip.close()
                screen.fail(str(error))
                print(f"\nLog: {_short(log)}")
                print("\nNext (to continue, after the cause is fixed):\n  make demo")
                return 1
            except KeyboardInterrupt:
                screen.fail("interrupted")
                print("\nNext (to continue, or to remove it):\n  make demo\n  make demo-down")
                return 130
            screen.done(step.summary())
        print(f"\n{result(journey, trip)}\n{next_steps(journey)}")
    return 0


def down() -> int:
    """Remove the site, its machines, networks, keys and logs; return the exit code."""
    with Path("/dev/null").open("w") as nowhere:
        screen = Screen(nowhere)
        journey = Journey(listen=screen.listen)
        screen.start("Remove the site and its machines")
        try:
            journey.lab.down()
        except CommandError as error:
            screen.fail(str(error))
            return 1
        shutil.rmtree(journey.cache, ignore_errors=True)
        screen.done("")
    print("Kept as a cache: images named airlift*, ~/.cache/airlift, .venv")
    return 0


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def main() -> int:
    """Run the demo, or remove it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--down", action="store_true", help="remove everything that the demo made")
    parser.add_argument(
        "--source",
        choices=["auto", "registry", "debian"],
        default="auto",
        help="source of the images: registries, Debian packages, or whichever can be reached "
        "(default: auto)",
    )
    arguments = parser.parse_args()
    return down() if arguments.down else up(arguments.source)


if __name__ == "__main__":
    sys.exit(main())
