"""The picture of flows in the documents is the one table that the firewall is made from."""

import copy

import yaml

from scripts import flows_doc


def test_document_shows_the_current_table() -> None:
    site = yaml.safe_load(flows_doc.DEFAULTS.read_text())
    assert flows_doc.DOCUMENT.read_text() == flows_doc.render(flows_doc.DOCUMENT.read_text(), site)


def test_a_changed_port_changes_the_document() -> None:
    site = yaml.safe_load(flows_doc.DEFAULTS.read_text())
    other = copy.deepcopy(site)
    other["site_ports"]["postgres"] = 15432
    document = flows_doc.DOCUMENT.read_text()
    assert flows_doc.render(document, site) != flows_doc.render(document, other)
