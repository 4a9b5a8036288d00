"""Measure a site: upgrade and rollback under load, a frozen host, a power cut."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

from bundle.builder.images import engine
from scripts import power, sick
from scripts.journey import Journey
from scripts.roundtrip import Delivered, RoundTrip

#: A host without the service's image, so that the peer must transfer all of it.
PEER_HOST = "monitor-1"
_LOAD = "cat > /tmp/peer.tar.gz && sudo docker load --quiet --input /tmp/peer.tar.gz"
_PEER = f"""ssh airlift-admin@"$2" '{_LOAD}' < "$1"
"""
#: A registry reached over SSH, from which a host takes a whole image; runs on the jump host.
_UNREGISTRY = """
import subprocess, sys, time
from pathlib import Path
from bundle.jumphost.registry import RegistryServer
host, image = sys.argv[1:]
with RegistryServer(Path("/opt/airlift/store")) as server:
    tunnel = f"127.0.0.1:5990:127.0.0.1:{server.port}"
    pull = f"sudo docker pull --quiet 127.0.0.1:5990/{image}"
    started = time.monotonic()
    subprocess.run(["ssh", "-R", tunnel, host, pull], check=True, stdout=subprocess.DEVNULL)
    print(time.monotonic() - started)
"""
_UNREGISTRY_CLEAN = 'docker image rm --force "127.0.0.1:5990/$1" > /dev/null'
_PEER_ADDRESS = "172.30.4.10"
_PEER_CLEAN = 'rm -f /tmp/peer.tar.gz; docker image rm --force "$1" > /dev/null'
#: A host without any container or image.
_BARE = """docker ps --all --quiet | xargs --no-run-if-empty docker rm --force > /dev/null
docker system prune --all --force > /dev/null
"""


def site(listen: Callable[[str], None], say: Callable[[str], None]) -> dict[str, Any]:
    """Raise a lab, measure, and remove it; return the flat results."""
    journey = Journey(listen=listen)
    journey.lab.down()
    try:
        return _measure(journey, say)
    finally:
        journey.lab.down()


def _measure(journey: Journey, say: Callable[[str], None]) -> dict[str, Any]:
    say("build, lab, import")
    journey.prepare()
    say("install")
    journey.install()
    journey.fetch_access()
    say("images of a whole host, by both ways")
    ours, theirs = _whole_host(journey)
    say("an app host freezes under load")
    frozen = sick.measure(journey, "frozen", seconds=20)
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
    say("a power cut of all hosts")
    power.cut(journey, journey.hosts())
    recovery = power.until_it_serves(journey)
    say("the peer's way")
    component = journey.facts.manifest["components"]["app"]
    full = sum(layer["size"] for layer in component["layers"])
    peer = _peer(journey)
    whole = _unregistry(journey, component)
    steady = trip.result.phases["steady"].latency
    swaps = [trip.result.phases[name] for name in trip.swaps]
    most = max(delivered.values(), key=lambda it: it.bytes)
    return {
        "swap_requests": sum(phase.sent for phase in swaps),
        "swaps": 4,
        "swap_failed": trip.result.failed,
        "swap_p99_ratio": max(phase.latency.p99 for phase in swaps) / steady.p99,
        "sick_replica_failed": frozen.failed,
        "sick_replica_requests": frozen.result.phases[sick.SICK].sent,
        "reboot_recovery_seconds": recovery,
        "rollback_seconds": rollback,
        "upgrade_bytes": most.bytes,
        "upgrade_bytes_ratio": most.bytes / full,
        "upgrade_delivery_seconds": most.seconds,
        "upgrade_pull_seconds": most.pulled,
        "load_seconds": ours.seconds,
        "load_pull_seconds": ours.pulled,
        "load_peer_seconds": theirs,
        "load_time_ratio": ours.pulled / theirs,
        "load_proven_time_ratio": ours.seconds / theirs,
        "upgrade_peer_seconds": peer,
        "peer_unregistry_seconds": whole,
        "peer_unregistry_bytes": full,
        "upgrade_time_ratio": most.pulled / peer,
        "upgrade_proven_time_ratio": most.seconds / peer,
    }


def _seconds(run: Callable[[], object]) -> float:
    start = time.monotonic()
    run()
    return time.monotonic() - start


def _whole_host(journey: Journey) -> tuple[Delivered, float]:
    """Remove all images of a host and deliver them in both ways; return the peer's seconds."""
    journey.lab.console(PEER_HOST, _BARE)
    done = journey.play("install", "--limit", PEER_HOST, "--tags", "images")
    brought = Delivered.reported_in(done.output)[PEER_HOST]
    journey.lab.console(PEER_HOST, _BARE)
    theirs = _load(journey, list(brought.components))
    journey.lab.console(PEER_HOST, "rm -f /tmp/peer.tar.gz")
    journey.install()
    return brought, theirs


def _peer(journey: Journey) -> float:
    """Copy the service's whole image to a host in the peer's way, and remove it again."""
    seconds = _load(journey, ["app"])
    reference = f"airlift/app:{journey.facts.manifest['image_source']}"
    journey.lab.console(PEER_HOST, _PEER_CLEAN, reference)
    return seconds


def _unregistry(journey: Journey, component: dict[str, Any]) -> float:
    """Pull the service's whole image to a host that has nothing of it, as unregistry would."""
    image = f"{component['repository']}@{component['manifest_digest']}"
    python = f"cd /opt/airlift/current && ./venv/bin/python - airlift-admin@{_PEER_ADDRESS} {image}"
    done = journey.lab.ssh(python, stdin=_UNREGISTRY)
    journey.lab.console(PEER_HOST, _UNREGISTRY_CLEAN, image)
    return float(done.output)


def _load(journey: Journey, components: list[str]) -> float:
    """Copy images as one .tar.gz to a host and load it there; packing is not counted."""
    saved = journey.cache / "peer.tar.gz"
    docker = " ".join(engine.docker())
    source = journey.facts.manifest["image_source"]
    references = [f"airlift/{name}:{source}" for name in components]
    script = f'{docker} save "${{@:2}}" | gzip -6 > "$1"'
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script, "-", str(saved), *references], check=True
    )
    target = f"/tmp/{saved.name}"  # noqa: S108 - of the lab's jump host
    journey.lab.send("jump", 'cat > "$1" && chmod 644 "$1"', target, data=saved.read_bytes())
    saved.unlink()
    words = f"set -- {target} {_PEER_ADDRESS}\n{_PEER}"
    return _seconds(lambda: journey.lab.ssh(words))
