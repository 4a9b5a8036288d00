"""The workflows: what they run, their permissions, and the jobs on a jump host."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.version import ROOT
from tests.unit.scripts.workflowkit import (
    FILES,
    FOLDER,
    Event,
    Expression,
    load,
    made,
    needs,
    steps,
)

WORKFLOWS = {path.name: load(path) for path in FILES}
CI, DEPLOY = WORKFLOWS["ci.yml"], WORKFLOWS["deploy.yml"]
JOBS = [
    pytest.param(workflow, name, job, id=f"{file}:{name}")
    for file, workflow in WORKFLOWS.items()
    for name, job in workflow["jobs"].items()
]
SITES = ("staging", "production")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
Job = dict[str, Any]

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
every_job = pytest.mark.parametrize(("workflow", "name", "job"), JOBS)
every_site = pytest.mark.parametrize("site", SITES)


# ---------------------------------------------------------------- what the workflows run
@every_file
def test_every_action_is_pinned_by_commit_and_names_its_version(path: Path) -> None:
    for line in path.read_text().splitlines():
        if found := re.search(r"\buses: *(\S+)(.*)", line):
            local = found[1].startswith("./")
            pinned = re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}", found[1])
            assert local or (pinned and re.fullmatch(r" # v\d+\.\d+\.\d+", found[2])), line


def test_an_action_has_one_version_everywhere() -> None:
    found: dict[str, set[str]] = {}
    for path in FILES:
        for action, version in re.findall(r"uses: *([\w./-]+)@(\S+ # \S+)", path.read_text()):
            found.setdefault(action, set()).add(version)
    assert {action: sorted(ones) for action, ones in found.items() if len(ones) > 1} == {}


@every_job
def test_containers_are_pinned_by_digest(workflow: Job, name: str, job: Job) -> None:
    container = job.get("container", {})
    for one in (container, *job.get("services", {}).values()):
        image = one if isinstance(one, str) else one.get("image", "")
        assert not image or re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", image)


@every_file
def test_nothing_is_called_latest(path: Path) -> None:
    """Images, runners and releases have fixed names: a moving name is not reproducible."""
    assert not re.search(r"\blatest\b", path.read_text())


@every_job
def test_every_make_target_is_there(workflow: Job, name: str, job: Job) -> None:
    assert set(made(job)) - TARGETS == set()


def test_what_a_developer_checks_is_what_ci_checks() -> None:
    called = {target for job in CI["jobs"].values() for target in made(job)}
    assert called >= {"lint", "coverage", "newcomer", "build", "candidate", "scan", "push"}
    assert steps(CI["jobs"]["test"])[-1]["run"] == ".ci/run"
    assert (ROOT / ".ci" / "run").read_text().endswith("exec make test\n")


def test_the_workflows_are_linted_with_everything_else() -> None:
    said = subprocess.run(
        ["make", "-n", "lint-code"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {"actionlint", "zizmor --quiet --offline .github"} <= set(said.splitlines())


@every_job
def test_no_expression_becomes_part_of_a_script(workflow: Job, name: str, job: Job) -> None:
    """A branch may be named `$(curl …)`: outside values go through the environment."""
    assert [step for step in steps(job) if "${{" in step.get("run", "")] == []


# ---------------------------------------------------------------- permissions
@every_job
def test_every_job_says_what_it_may_do(workflow: Job, name: str, job: Job) -> None:
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert isinstance(job["permissions"], dict)
    assert set(job["permissions"].values()) <= {"read", "write"}


@pytest.mark.parametrize(
    "file", [name for name in WORKFLOWS if "pull_request" in WORKFLOWS[name]["on"]]
)
def test_no_job_that_may_write_runs_for_a_pull_request(file: str) -> None:
    """A job that calls a workflow has permissions only as a limit for the called jobs."""
    workflow = WORKFLOWS[file]
    for name in Event("pull_request", "refs/pull/7/merge").ran(workflow):
        job = workflow["jobs"][name]
        if "uses" not in job:
            assert "write" not in job["permissions"].values(), name


def test_a_workflow_that_is_called_gets_no_more_than_its_jobs_need() -> None:
    allowed = DEPLOY["jobs"]["ci"]["permissions"]
    needed: dict[str, str] = {}
    for job in CI["jobs"].values():
        needed |= {key: value for key, value in job["permissions"].items() if value == "write"}
    assert allowed == {"contents": "read", **needed}


@every_file
def test_no_workflow_runs_foreign_code_with_our_rights(path: Path) -> None:
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(load(path)["on"])


@every_job
def test_no_checkout_leaves_a_token_behind(workflow: Job, name: str, job: Job) -> None:
    for step in steps(job):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_no_cloud_key_is_stored() -> None:
    """The cloud grants a role to the job's token, and a webhook's address is no cloud key."""
    text = "\n".join(path.read_text() for path in (FOLDER / "ci.yml", FOLDER / "deploy.yml"))
    assert set(re.findall(r"secrets\.(\w+)", text)) == {"DEPLOY_WEBHOOK"}
    assert not re.search(r"(?i)access-key|client-secret|credentials_json", text)
    push = CI["jobs"]["push"]
    assert push["permissions"]["id-token"] == "write"
    cloud = [step for step in steps(push) if "aws-actions" in step.get("uses", "")]
    assert all(step["if"] == "vars.REGISTRY_AWS_ROLE != ''" for step in cloud)
    assert set(cloud[0]["with"]) == {"role-to-assume", "aws-region"}


@every_job
def test_every_job_ends(workflow: Job, name: str, job: Job) -> None:
    if "uses" not in job:
        assert 0 < job["timeout-minutes"] <= 120


@every_file
def test_two_runs_of_a_branch_do_not_run_beside_each_other(path: Path) -> None:
    concurrency = load(path)["concurrency"]
    assert "github.ref" in concurrency["group"]


def test_only_a_newer_commit_of_a_pull_request_ends_a_run() -> None:
    for workflow in (CI, DEPLOY):
        text = workflow["concurrency"]["cancel-in-progress"]
        for name in ("push", "workflow_dispatch", "pull_request"):
            ends = Expression(text, Event(name).context({})).value()
            assert ends == (name == "pull_request")


def test_a_called_workflow_does_not_wait_for_its_caller() -> None:
    assert "github.workflow" in CI["concurrency"]["group"]
    assert DEPLOY["concurrency"]["group"].startswith("deploy-")


@every_job
def test_what_a_pull_request_downloads_is_not_kept_for_others(
    workflow: Job, name: str, job: Job
) -> None:
    for step in steps(job):
        used = step.get("uses", "")
        assert not used.startswith("actions/cache@"), "this action saves for each event"
        if used.startswith("actions/cache/save@"):
            assert step["if"] == "github.ref == 'refs/heads/main'"


def test_what_is_cached_is_named_after_the_locks() -> None:
    keys = {
        step["with"]["key"] for step in steps(CI["jobs"]["lint"]) if "cache" in step.get("uses", "")
    }
    assert len(keys) == 1
    for lock in re.findall(r"'([^']+)'", keys.pop().partition("hashFiles")[2]):
        assert list(ROOT.glob(lock)), lock


# ---------------------------------------------------------------- on the jump host
@every_site
def test_a_site_is_deployed_step_by_step_by_make_alone(site: str) -> None:
    job = DEPLOY["jobs"][site]
    parts = ["import", "preflight", "upgrade", "smoke"]
    assert made(job) == [f"deploy-{part}" for part in parts]
    assert made(DEPLOY["jobs"][f"rollback-{site}"]) == ["deploy-rollback"]
    for name in (site, f"rollback-{site}"):
        runs = [step["run"] for step in steps(DEPLOY["jobs"][name]) if "run" in step]
        assert runs == [f"make {target}" for target in made(DEPLOY["jobs"][name])]


def test_both_sites_are_deployed_in_the_same_way() -> None:
    ones = [DEPLOY["jobs"][site] for site in SITES]
    assert steps(ones[0]) == steps(ones[1])
    assert ones[0]["outputs"] == ones[1]["outputs"]
    backs = [DEPLOY["jobs"][f"rollback-{site}"] for site in SITES]
    assert steps(backs[0]) == steps(backs[1])


def test_a_jump_host_needs_python_and_make_only() -> None:
    parts = ("import", "preflight", "upgrade", "smoke", "rollback")
    words = ["make", "-n", *(f"deploy-{part}" for part in parts)]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"python3 -m scripts.deploy {part}" for part in parts]


@every_site
def test_every_setting_of_a_job_is_one_that_the_program_knows(site: str) -> None:
    from scripts.deploy.settings import NAMES, NEEDED  # noqa: PLC0415

    env = DEPLOY["jobs"][site]["env"]
    assert set(env) <= set(NAMES)
    for part in ("import", "preflight", "upgrade", "smoke"):
        assert set(NEEDED[part]) <= set(env)
    assert set(NEEDED["rollback"]) <= set(DEPLOY["jobs"][f"rollback-{site}"]["env"])


def test_what_is_downloaded_was_uploaded_by_a_job_before() -> None:
    for workflow in WORKFLOWS.values():
        left: dict[str, set[str]] = {}
        for name, job in workflow["jobs"].items():
            before = set().union(*(left.get(one, set()) for one in needs(job)))
            for step in steps(job):
                used = step.get("uses", "")
                if used.startswith("actions/download-artifact@"):
                    assert step["with"]["name"] in before, name
                if used.startswith("actions/upload-artifact@"):
                    left.setdefault(name, set()).add(step["with"]["name"])
            left.setdefault(name, set()).update(before)


def test_people_are_told_whatever_happened() -> None:
    job = DEPLOY["jobs"]["notify"]
    assert set(needs(job)) == set(DEPLOY["jobs"]) - {"notify"}
    for event in (Event(), Event(ends={"ci": "failure"}), Event(cancelled=True)):
        assert "notify" in event.ran(DEPLOY)
    step = steps(job)[-1]
    assert made(job) == ["deploy-notify"]
    assert step["env"]["DEPLOY_RESULTS"] == "${{ toJSON(needs) }}"
    # The step writes the address to a private file and passes it in no argument.
    assert "umask 077" in step["run"]


# ---------------------------------------------------------------- dependency updates
def test_actions_packages_and_images_are_looked_after() -> None:
    found = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    kinds = {one["package-ecosystem"] for one in found}
    assert kinds >= {"github-actions", "pip", "docker"}
    for one in found:
        assert one["cooldown"]["default-days"] >= 7
        for folder in one.get("directories", [one.get("directory")]):
            assert (ROOT / folder.lstrip("/")).is_dir(), folder
