"""The site's side of the benchmark: install twice, upgrade and roll back under load."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

from bundle import engine
from scripts.journey import Journey
from scripts.roundtrip import RoundTrip

#: A host without the service's image: there the peer's way brings all of it.
PEER_HOST = "monitor-1"
_LOAD = "cat > /tmp/peer.tar.gz && sudo docker load --quiet --input /tmp/peer.tar.gz"
_PEER = f"""ssh airlift-admin@"$2" '{_LOAD}' < "$1"
"""
_PEER_CLEAN = 'rm -f /tmp/peer.tar.gz; docker image rm --force "$1" > /dev/null'


def site(listen: Callable[[str], None], say: Callable[[str], None]) -> dict[str, Any]:
    """Raise a lab, measure, take it away; return the flat results."""
    journey = Journey(listen=listen)
    journey.lab.down()
    try:
        return _measure(journey, say)
    finally:
        journey.lab.down()


def _measure(journey: Journey, say: Callable[[str], None]) -> dict[str, Any]:
    say("build, lab, import")
    journey.make_key()
    journey.build()
    journey.raise_lab()
    journey.carry()
    journey.check_by_hand()
    journey.bootstrap()
    journey.place_site()
    say("install, twice")
    first = _seconds(journey.install)
    journey.fetch_access()
    second = _seconds(journey.install)
    trip = RoundTrip(journey)
    say("the next release")
    trip.bring()
    say("upgrades and rollbacks under load")
    trip.start_clients()
    trip.upgrade()
    trip.rollback()
    rollback = trip.seconds["rollback until it serves"]
    delivered = dict(trip.delivered)
    trip.upgrade()
    trip.rollback()
    trip.stop_clients()
    say("the peer's way")
    component = journey.facts.manifest["components"]["app"]
    full = sum(layer["size"] for layer in component["layers"])
    peer = _peer(journey)
    steady = trip.result.phases["steady"].latency
    swaps = [trip.result.phases[name] for name in trip.swaps]
    count, seconds = max(delivered.values())
    return {
        "swap_requests": sum(phase.sent for phase in swaps),
        "swaps": 4,
        "swap_failed": trip.result.failed,
        "swap_p99_ratio": max(phase.latency.p99 for phase in swaps) / steady.p99,
        "rollback_seconds": rollback,
        "upgrade_seconds": trip.seconds["upgrade"],
        "upgrade_bytes": count,
        "upgrade_bytes_ratio": count / full,
        "upgrade_delivery_seconds": seconds,
        "upgrade_peer_seconds": peer,
        "upgrade_time_ratio": seconds / peer,
        "install_seconds": first,
        "reinstall_seconds": second,
        "reinstall_time_ratio": second / first,
    }


def _seconds(run: Callable[[], object]) -> float:
    start = time.monotonic()
    run()
    return time.monotonic() - start


def _peer(journey: Journey) -> float:
    """Copy the whole image as a .tar.gz to a host and load it there; packing is not counted."""
    saved = journey.cache / "peer.tar.gz"
    docker = " ".join(engine.docker())
    reference = f"airlift/app:{journey.facts.manifest['image_source']}"
    script = f'{docker} save "$1" | gzip -6 > "$2"'
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script, "-", reference, str(saved)], check=True
    )
    target = f"/tmp/{saved.name}"  # noqa: S108 - of the lab's jump host
    journey.lab.send("jump", 'cat > "$1" && chmod 644 "$1"', target, data=saved.read_bytes())
    saved.unlink()
    address = "172.30.4.10"
    words = f"set -- {target} {address}\n{_PEER}"
    seconds = _seconds(lambda: journey.lab.ssh(words))
    journey.lab.console(PEER_HOST, _PEER_CLEAN, reference)
    return seconds
