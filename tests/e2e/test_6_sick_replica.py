"""An app host freezes under load: the edge sends it no requests, and it returns by itself."""

from __future__ import annotations

from scripts import sick
from scripts.journey import Journey
from tests.e2e.support import PORTS, address

#: Runs on the monitor host: reads what Prometheus reads.
_SCRAPE = """
import ssl, sys, urllib.request as u
context = ssl.create_default_context(cafile="/etc/airlift/tls/ca.pem")
print(u.urlopen(sys.argv[1], timeout=10, context=context).read().decode())
"""


def test_a_frozen_app_host_is_taken_out_and_returns(installed: Journey) -> None:
    before = sick.show(installed.lab)
    found = sick.measure(installed, "frozen", seconds=12)
    assert found.failed == 0, str(found.result)
    assert found.result.phases[sick.SICK].sent > 100
    frozen = found.shown["replicas"][sick.HOST]
    assert frozen["state"] == "out"
    assert frozen["why"] == "no answer"
    assert found.shown["watcher"]["alive"]
    others = [one for name, one in found.shown["replicas"].items() if name != sick.HOST]
    assert [one["state"] for one in others] == ["in"]
    # Removing and returning the replica makes no new generation and no event of a run.
    after = sick.show(installed.lab)
    same = ("generation", "live_generation", "served_generation", "since", "last_run")
    assert [after[key] for key in same] == [before[key] for key in same]
    url = f"https://{address('edge-1')}:{PORTS['node_exporter']}/metrics"
    text = installed.lab.python("monitor-1", _SCRAPE, url).output
    assert f'airlift_replica_taken_out_total{{colour="blue",replica="{sick.HOST}"}} ' in text
