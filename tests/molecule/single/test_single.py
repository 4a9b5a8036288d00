"""A site whose zones are all on one host: in the order of its life.

Molecule has installed it, and installed it again without a change.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Callable

from tests.molecule.single.conftest import CA, FIRST, KEY, SECOND, URL, Site

CLIENT = "172.27.0.10"
#: In scripts/costs.py, this is what preflight asks for.
MEMORY_MB = 4608
#: The install has judged this host a moment ago.
NO_PREFLIGHT = ("--skip-tags", "preflight")
Record = Callable[[str, object], None]
PREDICT = ("POST", "/predict", {"text": "what a wonderful day"})


def test_a_client_in_another_network_is_served(site: Site) -> None:
    requests = (("GET", "/health/ready", None), PREDICT, ("POST", "/items", {"name": "one"}))
    answers = site.send(*requests, key=KEY)
    assert [status for status, *_ in answers] == [200, 200, 201], answers
    site.play("smoke", release=FIRST)


def known_by_its_address(site: Site) -> None:
    """See that the service's log has the address of the client, and none of this host's."""
    ((status, headers, said),) = site.send(PREDICT, key=KEY)
    assert status == 200, said
    assert site.peer_of(headers["x-request-id"]) == CLIENT


def test_the_service_knows_a_client_by_its_own_address(site: Site) -> None:
    """Nginx and the service are behind one bridge, which must not stand for all clients."""
    known_by_its_address(site)
    # One client without a key has used up its requests; another one, without a key either, has not.
    answers = site.send(*[PREDICT] * 32)
    assert {status for status, *_ in answers} == {401, 429}, answers[-1]
    ((status, headers, _),) = site.send(PREDICT, near=True)
    assert (status, headers["ratelimit-remaining"]) == (401, "29")


def test_upgrade_and_rollback_lose_no_request(site: Site) -> None:
    with site.load(6) as load:
        load.phase("upgrade")
        site.play("upgrade", *NO_PREFLIGHT, release=SECOND)
        assert site.shown()["release"] == SECOND
        load.phase("rollback")
        site.play("rollback", *NO_PREFLIGHT, release=SECOND)
        assert site.shown()["release"] == FIRST
    assert load.result.sent > 100
    assert load.result.failed == 0, str(load.result)


def used_mb(site: Site) -> float:
    """Return the memory in use on the host by all of its processes, without the kernel's cache."""
    _, said = site.lab.docker(
        "stats", "--no-stream", "--format", "{{.MemUsage}}", site.lab.name("site-1")
    )
    found = re.match(r"([\d.]+)([MG])iB ", said)
    assert found, said
    return float(found[1]) * {"M": 1.048576, "G": 1073.741824}[found[2]]


def test_memory_in_use_is_what_preflight_asks_for_at_most(
    site: Site, record_property: Record
) -> None:
    """Both colours run: the release before the rollback is still warm."""
    used = used_mb(site)
    record_property("memory_mb", round(used))
    assert 200 < used < MEMORY_MB


def ready() -> bool:
    """Say whether the site answers as ready."""
    connection = http.client.HTTPSConnection(
        URL.rpartition("/")[2], timeout=5, context=ssl.create_default_context(cafile=str(CA))
    )
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def test_after_a_reboot_it_serves_again_by_itself(site: Site, record_property: Record) -> None:
    name = site.lab.name("site-1")
    site.lab.docker("stop", name)
    start = time.monotonic()
    site.lab.docker("start", name)
    while not ready():
        assert time.monotonic() - start < 90
        time.sleep(0.5)
    record_property("seconds_until_it_serves", round(time.monotonic() - start))
    assert site.shown()["release"] == FIRST
    known_by_its_address(site)
    site.until_well(FIRST)
