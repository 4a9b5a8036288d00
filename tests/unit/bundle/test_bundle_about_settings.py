"""The description of a release's settings and migrations."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bundle.builder.about import migrations, settings
from bundle.errors import AirliftError, Kind
from tests.unit.bundle.bundlekit import TREE, Keys, make_tree
from tests.unit.bundle.deltakit import Suppliers, options, run_build


def test_the_real_trees_settings_and_migrations() -> None:
    found = settings.collect(TREE / "roles")
    assert found["settings"]["app_colour"]["choices"] == ["blue", "green"]
    assert found["settings"]["app_colour"]["default"] == "blue"
    assert found["settings"]["postgres_owner_password"]["secret"] is True
    assert found["settings"]["site_name"]["required"] is True
    assert "default" not in found["settings"]["site_name"]
    revisions = migrations.collect(TREE / migrations.VERSIONS)
    head = yaml.safe_load((TREE / "bundle" / "release.yml").read_text())["schema"]["head"]
    assert [m["version"] for m in revisions] == list(range(1, head + 1))


def test_migrations_that_do_not_lead_to_the_schema(tmp_path: Path, keys: Keys) -> None:
    tree = make_tree(tmp_path / "tree", b"")
    versions = tree / migrations.VERSIONS
    versions.mkdir(parents=True)
    head = yaml.safe_load((TREE / "bundle" / "release.yml").read_text())["schema"]["head"]
    name = f"{head - 1:04d}"
    (versions / f"{name}_x.py").write_text(f'revision = "{name}"\ndown_revision = "0000"\n')
    with pytest.raises(AirliftError) as caught:
        run_build(options(tree, tmp_path / "out", keys), Suppliers())
    assert (caught.value.kind, f"lead to schema {head - 1}" in caught.value.what) == (
        Kind.BUILD_INPUT,
        True,
    )
    (versions / f"{name}_x.py").write_text("revision = str(2)\n")
    with pytest.raises(AirliftError, match="a migration has no revision"):
        run_build(options(tree, tmp_path / "out", keys), Suppliers())
