"""What the workflows may do, on which machine, and which jobs each event starts."""

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
    labels,
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


# ---------------------------------------------------------------- what is run
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
    """Neither an image, nor a runner, nor a release: a name that moves says nothing later."""
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
    """A branch may be called `$(curl …)`: what comes from outside goes through the environment."""
    assert [step for step in steps(job) if "${{" in step.get("run", "")] == []


# ---------------------------------------------------------------- what may be done
@every_job
def test_every_job_says_what_it_may_do(workflow: Job, name: str, job: Job) -> None:
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert isinstance(job["permissions"], dict)
    assert set(job["permissions"].values()) <= {"read", "write"}


@pytest.mark.parametrize(
    "file", [name for name in WORKFLOWS if "pull_request" in WORKFLOWS[name]["on"]]
)
def test_no_job_that_may_write_runs_for_a_pull_request(file: str) -> None:
    """A job that calls a workflow only says what that one's jobs may have at most."""
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
    """The registry's cloud gives the job a role for its token; a webhook's address is no key."""
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
        assert not used.startswith("actions/cache@"), "it saves whatever happens"
        if used.startswith("actions/cache/save@"):
            assert step["if"] == "github.ref == 'refs/heads/main'"


def test_what_is_cached_is_named_after_the_locks() -> None:
    keys = {
        step["with"]["key"] for step in steps(CI["jobs"]["lint"]) if "cache" in step.get("uses", "")
    }
    assert len(keys) == 1
    for lock in re.findall(r"'([^']+)'", keys.pop().partition("hashFiles")[2]):
        assert list(ROOT.glob(lock)), lock


# ---------------------------------------------------------------- which jobs an event starts
ALL_OF_CI = {"lint", "coverage", "test", "newcomer", "image"}
TAG = {"check", "ci", "bundle", "staging", "production", "notify"}


def test_ci_runs_on_push_pull_request_by_hand_and_when_called() -> None:
    assert {"push", "pull_request", "workflow_dispatch", "workflow_call"} <= set(CI["on"])
    assert CI["on"]["push"] == {"branches": ["main"]}


@pytest.mark.parametrize(
    ("event", "more"),
    [
        (Event("pull_request", "refs/pull/7/merge"), set()),
        (Event("push", "refs/heads/main"), {"push"}),
        (Event("push", "refs/tags/v1.1.0"), {"push"}),
        (Event("push", "refs/heads/main", variables={}), set()),
        (Event("workflow_dispatch", "refs/heads/main"), {"pins"}),
        (Event("schedule", "refs/heads/main"), {"pins"}),
        (Event("push", "refs/heads/main", ends={"image": "failure"}), set()),
        (Event("push", "refs/heads/main", ends={"coverage": "failure"}), set()),
    ],
)
def test_the_image_is_pushed_from_main_and_tags_when_all_is_green(
    event: Event, more: set[str]
) -> None:
    assert event.ran(CI) == ALL_OF_CI | more


def test_a_deployment_starts_by_tag_pull_request_or_hand() -> None:
    assert set(DEPLOY["on"]) == {"push", "pull_request", "workflow_dispatch"}
    assert DEPLOY["on"]["push"] == {"tags": ["v*"]}
    inputs = DEPLOY["on"]["workflow_dispatch"]["inputs"]
    assert inputs["environment"]["options"] == list(SITES)
    assert inputs["environment"]["required"] is True
    assert inputs["operation"]["options"] == ["deploy", "rollback"]


def test_a_tag_goes_through_ci_and_staging_to_production() -> None:
    assert Event().ran(DEPLOY) == TAG


def test_a_pull_request_ends_after_ci() -> None:
    assert Event("pull_request", "refs/pull/7/merge").ran(DEPLOY) == {"check", "ci"}


@pytest.mark.parametrize("ref", ["refs/pull/7/merge", "refs/tags/v1.1.0", "refs/heads/main"])
@pytest.mark.parametrize("end", ["success", "failure", "skipped", "cancelled"])
def test_a_pull_request_never_reaches_a_machine_of_ours(ref: str, end: str) -> None:
    """Whatever other jobs did, and whatever it calls itself."""
    broken = {site: {"smoke": "failure", "switched": "true"} for site in SITES}
    for workflow in WORKFLOWS.values():
        ours = {name for name, job in workflow["jobs"].items() if "self-hosted" in labels(job)}
        for operation in ("", "deploy", "rollback"):
            for site in SITES:
                event = Event("pull_request", ref, outputs=broken)
                event.inputs = {"operation": operation, "environment": site}
                event.ends = dict.fromkeys(workflow["jobs"], end)
                assert not ours & event.ran(workflow)


@every_job
def test_each_job_on_a_machine_of_ours_refuses_pull_requests_by_itself(
    workflow: Job, name: str, job: Job
) -> None:
    """Also if all that it waits for had ended well: no other job has to be right for that."""
    if "self-hosted" not in labels(job):
        return
    good = {"result": "success", "outputs": {"smoke": "failure", "switched": "true"}}
    for operation in ("", "deploy", "rollback"):
        for site in SITES:
            event = Event("pull_request", "refs/tags/v1.1.0")
            event.inputs = {"operation": operation, "environment": site}
            context = event.context(dict.fromkeys(needs(job), good))
            assert not Expression(job["if"], context).value()


def test_a_branch_is_never_deployed() -> None:
    by_hand = {"operation": "deploy", "environment": "staging", "tests": True}
    event = Event("workflow_dispatch", "refs/heads/main", by_hand)
    assert event.ran(DEPLOY) == {"check", "ci", "notify"}


@pytest.mark.parametrize("job", ["check", "ci", "bundle"])
def test_nothing_is_deployed_after_a_failure(job: str) -> None:
    ran = Event(ends={job: "failure"}).ran(DEPLOY)
    assert not ran & {"staging", "production", "rollback-staging", "rollback-production"}
    assert "notify" in ran


def test_production_waits_for_a_staging_that_passed() -> None:
    assert "production" not in Event(ends={"staging": "failure"}).ran(DEPLOY)
    assert "production" not in Event(variables={"PRODUCTION_SITE": "x"}).ran(DEPLOY)


def test_a_site_without_a_runner_is_left_out() -> None:
    assert Event(variables={"STAGING_SITE": "x"}).ran(DEPLOY) == TAG - {"production"}


@every_site
@pytest.mark.parametrize("tests", [True, False])
def test_by_hand_one_environment_is_deployed(site: str, tests: bool) -> None:
    by_hand = {"operation": "deploy", "environment": site, "tests": tests}
    ran = Event("workflow_dispatch", "refs/tags/v1.1.0", by_hand).ran(DEPLOY)
    assert ran == {"check", "bundle", site, "notify"} | ({"ci"} if tests else set())


def test_by_hand_a_failure_of_ci_counts_when_it_was_asked_for() -> None:
    by_hand = {"operation": "deploy", "environment": "staging", "tests": True}
    event = Event("workflow_dispatch", "refs/tags/v1.1.0", by_hand, ends={"ci": "failure"})
    assert event.ran(DEPLOY) == {"check", "ci", "notify"}


# ---------------------------------------------------------------- the way back
@every_site
def test_a_failed_smoke_test_is_rolled_back(site: str) -> None:
    event = Event(ends={site: "failure"}, outputs={site: {"smoke": "failure", "switched": "true"}})
    assert f"rollback-{site}" in event.ran(DEPLOY)


@every_site
@pytest.mark.parametrize(
    "outputs",
    [
        # A gate failed: the upgrade itself put back what served.
        {"smoke": "skipped", "switched": "false"},
        {"smoke": "skipped", "switched": "true"},
        # What failed served before this run.
        {"smoke": "failure", "switched": "false"},
        {"smoke": "success", "switched": "true"},
        {},
    ],
)
def test_nothing_else_is_rolled_back_by_itself(site: str, outputs: dict[str, str]) -> None:
    event = Event(ends={site: "failure"}, outputs={site: outputs})
    assert not event.ran(DEPLOY) & {"rollback-staging", "rollback-production"}


@every_site
def test_by_hand_one_site_is_rolled_back_and_nothing_else_is_done(site: str) -> None:
    by_hand = {"operation": "rollback", "environment": site, "tests": True}
    ran = Event("workflow_dispatch", "refs/tags/v1.1.0", by_hand).ran(DEPLOY)
    assert ran == {"check", f"rollback-{site}", "notify"}


@every_site
def test_a_rollback_waits_for_no_reviewer_and_behind_no_deployment(site: str) -> None:
    deploy, back = DEPLOY["jobs"][site], DEPLOY["jobs"][f"rollback-{site}"]
    assert deploy["environment"] == site
    assert "environment" not in back
    assert set(needs(back)) == {"check", site}
    assert labels(back) == labels(deploy) == ["self-hosted", f"airlift-{site}"]
    groups = [job["concurrency"]["group"] for job in (deploy, back)]
    assert groups == [f"site-{site}", f"rollback-{site}"]
    assert not any(job["concurrency"]["cancel-in-progress"] for job in (deploy, back))


@every_site
def test_a_rollback_goes_back_from_the_release_that_failed_or_the_one_that_is_named(
    site: str,
) -> None:
    job = DEPLOY["jobs"][f"rollback-{site}"]
    waited = {"check": {"result": "success", "outputs": {"release": "1.1.0"}}}

    def leaves(**inputs: str) -> object:
        return Expression(
            job["env"]["DEPLOY_RELEASE"], Event(inputs=inputs).context(waited)
        ).value()

    assert leaves() == "1.1.0"
    assert leaves(operation="rollback", leave="1.0.9") == "1.0.9"
    assert leaves(operation="rollback", leave="") == ""


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
    # Its address is written into a file that only the job reads, and is in no argument.
    assert "umask 077" in step["run"]


# ---------------------------------------------------------------- what is kept up to date
def test_actions_packages_and_images_are_looked_after() -> None:
    found = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    kinds = {one["package-ecosystem"] for one in found}
    assert kinds >= {"github-actions", "pip", "docker"}
    for one in found:
        assert one["cooldown"]["default-days"] >= 7
        for folder in one.get("directories", [one.get("directory")]):
            assert (ROOT / folder.lstrip("/")).is_dir(), folder
