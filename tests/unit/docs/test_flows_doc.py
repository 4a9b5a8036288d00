"""The pictures of zones and flows in the documents match the table behind the firewall."""

import copy
import re

from scripts import flows_doc

SITE, EXPECTED = flows_doc.sources()


def test_document_shows_the_current_table() -> None:
    document = flows_doc.DOCUMENT.read_text()
    assert document == flows_doc.render(document, SITE, EXPECTED)


def test_a_changed_port_changes_table_and_picture() -> None:
    other = copy.deepcopy(SITE)
    other["site_ports"]["postgres"] = 15432
    assert flows_doc.table(SITE) != flows_doc.table(other)
    assert flows_doc.system(SITE, EXPECTED) != flows_doc.system(other, EXPECTED)


def arrows() -> set[tuple[str, int, str]]:
    """Return (from, port, to) for each arrow of the picture in the document."""
    picture = flows_doc.DOCUMENT.read_text().partition(flows_doc.SYSTEM)[2]
    found = re.findall(r'^  (\S+) -- "([\d, ]+)" --> (\S+)$', picture, re.MULTILINE)
    return {(start, int(one), end) for start, ports, end in found for one in ports.split(", ")}


def test_every_arrow_is_a_flow_and_every_flow_an_arrow() -> None:
    """Read the picture independently of the generator: source, port and zone of the target."""
    zone_of = {
        container: zone
        for zone, services in flows_doc.containers(EXPECTED).items()
        for container in services
    } | {"sshd": "all"}
    drawn = {
        ("self" if start in zone_of else start.removesuffix("_zone"), port, zone_of[end])
        for start, port, end in arrows()
    }
    allowed = {
        (flow["from"], SITE["site_ports"][port], flow["to"])
        for flow in SITE["site_flows"]
        for port in flow["ports"]
    }
    # No client on Grafana's own host connects to it.
    assert drawn == allowed - {("self", SITE["site_ports"]["grafana"], "monitor")}


def test_a_protocol_without_ports_is_drawn_and_listed() -> None:
    document = flows_doc.DOCUMENT.read_text()
    assert '  dmz_zone -- "VRRP" --> edge\n' in document
    row = "| edges that share an address | dmz | dmz | none: VRRP, with site_shared_address |"
    assert row in document
    without = copy.deepcopy(SITE)
    without["site_flows"] = [one for one in SITE["site_flows"] if "protocol" not in one]
    assert "VRRP" not in flows_doc.system(without, EXPECTED) + flows_doc.table(without)


def test_the_picture_has_every_container_that_status_expects() -> None:
    picture = flows_doc.DOCUMENT.read_text().partition(flows_doc.SYSTEM)[2]
    for zone, services in flows_doc.containers(EXPECTED).items():
        inside = picture.partition(f"  subgraph {zone}_zone[")[2].partition("\n  end\n")[0]
        assert [one for one in services if f'    {one}["{one}"]' not in inside] == [], zone
