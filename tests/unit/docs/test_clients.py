"""docs/CLIENTS.md: its commands run as written, and its limits match the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle.jumphost import prune
from scripts import costs
from scripts.page_parts import blocks
from tests.unit.scripts.deploykit import ROOT, JumpHost

PAGE = (ROOT / "docs" / "CLIENTS.md").read_text()
PAGES = ("CLIENTS.md", "COSTS.md", "DEPLOYMENT_STRATEGY.md")
DUTIES = "ECS, ECR, CloudWatch, Terraform, Secrets Manager, ALB, RDS, ElastiCache, IAM, OIDC"
WORDS = {"two": 2, "six": 6}


def command(mark: str, sites: Path) -> str:
    """Return the commands under a mark, with another folder for the sites."""
    return blocks(PAGE)[mark].replace("/opt/airlift/sites", str(sites))


def test_the_view_of_all_sites_of_a_jump_host(tmp_path: Path) -> None:
    for site, release in (("acme", "1.1.0"), ("globex", "1.0.0")):
        report = {"site": site, "release": release, "verdict": "ok", "sentence": f"Site {site} …"}
        path = tmp_path / site / ".airlift" / "status.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"format": 1, **report}))
    script = command("all sites of a jump host", tmp_path)
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "acme  1.1.0  ok  Site acme …\nglobex  1.0.0  ok  Site globex …\n"


@pytest.fixture
def jump(tmp_path: Path) -> JumpHost:
    """Return a jump host with two sites."""
    made = JumpHost(tmp_path)
    shutil.copytree(made.site, made.site.parent / "globex")
    for site in ("acme", "globex"):
        shutil.copy(made.password, made.site.parent / f"{site}.vault-password")
    return made


def loop(jump: JumpHost) -> list[str]:
    """Run the loop of the page; return the last line of each site."""
    done = subprocess.run(
        ["bash", "-c", command("several sites", jump.site.parent)],
        cwd=ROOT,
        env=jump.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return re.findall(r"^run · (.*)$", done.stdout, re.MULTILINE)


def test_several_sites_get_a_release_one_after_the_other(jump: JumpHost) -> None:
    assert loop(jump) == ["acme: done (exit code 0)", "globex: done (exit code 0)"]


def test_the_first_site_that_fails_ends_the_loop(jump: JumpHost) -> None:
    jump.wish(smoke={"1.1.0": "GET / answered 500 instead of 200"})
    (said,) = loop(jump)
    assert said.startswith("acme: the smoke test failed; the previous release serves again")


def test_limits_of_age_are_those_of_the_code() -> None:
    defaults: dict[str, Any] = costs.settings()
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE))
    days, authority = defaults["tls_days"], defaults["tls_ca_days"]
    assert rows["certificates of hosts"] == (
        f"`tls_days`, {days}; the authority's `tls_ca_days`, {authority}"
    )
    retention = defaults["app_job_retention_days"]
    assert rows["finished jobs"] == f"`app_job_retention_days`, {retention}"
    assert (defaults["backup_keep"], prune.MINIMUM) == (3, 2)
    assert rows["backups on the data host"] == "the newest three"
    assert "`prune` keeps two releases" in rows["bases of a delta"]
    assert f"`tls_renew_days` left, {defaults['tls_renew_days']} by default" in PAGE
    kept = []
    for name in ("release.yml", "deploy.yml"):
        text = (ROOT / ".github" / "workflows" / name).read_text()
        kept += re.findall(r"retention-days: (\d+)", text)
    (row,) = (value for name, value in rows.items() if name.startswith("bundle as an artefact"))
    assert row == f"{kept[0]} days, {kept[1]} days"


def test_waves_are_those_of_the_cost_analysis() -> None:
    assumed = yaml.safe_load((ROOT / "docs" / "costs.yml").read_text())
    canaries = re.search(r"^\| 1, canaries \| (\w+) clients", PAGE, re.MULTILINE)
    later = re.search(r"^\| 2 and later \| (\w+) clients each", PAGE, re.MULTILINE)
    assert canaries is not None
    assert later is not None
    assert WORDS[canaries[1]] == assumed["canaries"]["value"] == 2
    assert WORDS[later[1]] == assumed["wave"]["value"]


@pytest.mark.parametrize("duty", DUTIES.split(", "))
def test_the_cloud_born_duties_have_a_row(duty: str) -> None:
    page = (ROOT / "docs" / "DEPLOYMENT_STRATEGY.md").read_text()
    table = page.split("## The cloud-born document and this project")[1].split("\n## ")[0]
    assert re.search(rf"^\| [^|]*\b{duty}\b", table, re.MULTILINE), duty


@pytest.mark.parametrize("name", PAGES)
def test_every_anchor_is_a_heading(name: str) -> None:
    page = (ROOT / "docs" / name).read_text()
    for target, anchor in re.findall(r"\]\(([\w./]*)#([\w-]+)\)", page):
        path = ROOT / "docs" / (target or name)
        heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        slugs = [re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads]
        assert anchor in slugs, (target or name, anchor)


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_short_and_say_for_whom(name: str) -> None:
    lines = (ROOT / "docs" / name).read_text().splitlines()
    assert len(lines) <= 400
    head = "\n".join(lines[:10])
    for word in ("For", "Use when", "Time", "You need", "Result"):
        assert f"| **{word}** | " in head
