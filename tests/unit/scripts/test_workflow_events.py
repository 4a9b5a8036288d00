"""Which jobs each event starts, with every condition evaluated as GitHub does."""

from typing import Any

import pytest

from tests.unit.scripts.workflowkit import FILES, Event, Expression, labels, load, needs

WORKFLOWS = {path.name: load(path) for path in FILES}
CI, DEPLOY = WORKFLOWS["ci.yml"], WORKFLOWS["deploy.yml"]
JOBS = [
    pytest.param(workflow, name, job, id=f"{file}:{name}")
    for file, workflow in WORKFLOWS.items()
    for name, job in workflow["jobs"].items()
]
SITES = ("staging", "production")
Job = dict[str, Any]

every_job = pytest.mark.parametrize(("workflow", "name", "job"), JOBS)
every_site = pytest.mark.parametrize("site", SITES)


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


def test_a_tag_that_moved_upstream_stops_no_deployment_by_hand() -> None:
    """Then `pins` fails, but a build uses digests, so a hotfix must stay possible."""
    assert WORKFLOWS["deploy.yml"]["name"] == "deploy"
    event = Event("workflow_dispatch", "refs/tags/v1.1.0", workflow="deploy")
    assert event.ran(CI) == ALL_OF_CI
    assert CI["name"] == Event().workflow


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
    """Neither the results of other jobs nor the name of the ref may matter."""
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
    """The job's own condition must suffice, even if all jobs before it succeed."""
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


# ---------------------------------------------------------------- rollback
@every_site
def test_a_failed_smoke_test_is_rolled_back(site: str) -> None:
    event = Event(ends={site: "failure"}, outputs={site: {"smoke": "failure", "switched": "true"}})
    assert f"rollback-{site}" in event.ran(DEPLOY)


@every_site
@pytest.mark.parametrize(
    "outputs",
    [
        # A gate failed: the upgrade itself restored the active release.
        {"smoke": "skipped", "switched": "false"},
        {"smoke": "skipped", "switched": "true"},
        # The release that failed was active before this run.
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
