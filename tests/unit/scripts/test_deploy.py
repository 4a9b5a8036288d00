"""A deployment on a jump host: each outcome, and the release that then serves."""

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from scripts.deploy.outcome import Outcome
from scripts.deploy.settings import NAMES, NEEDED, ON_SITE
from tests.unit.scripts.deploykit import ROOT, JumpHost

IN_ORDER = ["import", "preflight", "upgrade --check --skip-tags preflight", "upgrade", "smoke"]


@pytest.fixture
def jump(tmp_path: Path) -> JumpHost:
    return JumpHost(tmp_path)


def verbs(jump: JumpHost) -> list[str]:
    """Return the calls without the status checks between them."""
    calls = [re.sub(r"^import .*", "import", call) for call in jump.calls]
    calls = [re.sub(r" -e swap_smoke_release=\S+", "", call) for call in calls]
    return [call for call in calls if call != "status"]


# ---------------------------------------------------------------- complete runs
def test_a_good_release_is_brought_in_order_and_serves(jump: JumpHost) -> None:
    done = jump.deploy("run")
    assert done.code == 0, done.output + done.error
    assert verbs(jump) == IN_ORDER
    assert jump.serves == "1.1.0"
    assert done.values == {
        "release": "1.1.0",
        "previous": "1.0.0",
        "switched": "true",
        "outcome": "done",
    }
    assert "smoke -e swap_smoke_release=1.1.0" in jump.calls
    assert "| upgrade | ok | N | 1.0.0 to 1.1.0 (blue) |" in done.summary
    assert "### run · acme: done" in done.summary


def test_a_log_that_nobody_reads_any_more_ends_no_deployment(jump: JumpHost) -> None:
    """Closing the log, like quitting a pager, must not leave a swap half done."""
    with jump.start("run") as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert verbs(jump) == IN_ORDER
    assert jump.serves == "1.1.0"
    assert "### run · acme: done" in jump.summary()


def test_every_command_is_shown_so_that_a_person_can_type_it(jump: JumpHost) -> None:
    output = jump.deploy("run").output
    place = f"$ cd {jump.home}/current && "
    vault = f"--vault-id acme@{jump.password}"
    command = f"{place}./venv/bin/ansible-playbook -i {jump.site} {vault} playbooks/upgrade.yml\n"
    assert command in output


def test_a_second_run_finds_the_work_done(jump: JumpHost) -> None:
    jump.deploy("run")
    done = jump.deploy("run")
    assert done.code == 0
    assert done.values["switched"] == "false"
    assert "was imported before" in done.summary
    assert "1.1.0 (blue) served before" in done.summary


def test_a_release_that_fails_the_smoke_test_is_taken_back(jump: JumpHost) -> None:
    jump.wish(smoke={"1.1.0": "GET /model/info answered 500 instead of 200"})
    done = jump.deploy("run")
    assert done.code == Outcome.ROLLED_BACK.code == 14
    assert verbs(jump) == [*IN_ORDER, "rollback", "smoke"]
    assert jump.calls[-2] == "smoke -e swap_smoke_release=1.0.0"
    assert jump.serves == "1.0.0"
    assert done.values["outcome"] == "rolled-back"
    assert done.values["rolled_back_to"] == "1.0.0"
    assert "| smoke | FAILED | N | smoke.yml: GET /model/info answered 500" in done.summary
    assert "| rollback | ok | N | 1.1.0 (blue) to 1.0.0 (blue) |" in done.summary


def test_a_status_that_stays_bad_is_a_failed_smoke_test(jump: JumpHost) -> None:
    jump.wish(status={"1.1.0": ["attention", "app-2 is down"]})
    done = jump.deploy("run")
    assert done.code == Outcome.ROLLED_BACK.code
    assert "app-2 is down" in done.error
    assert jump.serves == "1.0.0"


def test_a_warning_is_no_failed_smoke_test(jump: JumpHost) -> None:
    jump.wish(status={"1.1.0": ["warning", "no rollback takes seconds"]})
    assert jump.deploy("run").code == 0


def test_what_served_before_the_run_is_not_taken_back(jump: JumpHost) -> None:
    """The failing release was active before the run, so the previous release is no fix."""
    jump.wish(serves="1.1.0", imported=["1.0.0", "1.1.0"], smoke={"1.1.0": "no answer"})
    done = jump.deploy("run")
    assert done.code == Outcome.SMOKE.code == 13
    assert "rollback" not in verbs(jump)
    assert jump.serves == "1.1.0"


def test_a_rollback_that_fails_calls_for_a_person(jump: JumpHost) -> None:
    jump.wish(smoke={"1.1.0": "no answer"}, fail={"rollback": "the schema forbids it"})
    done = jump.deploy("run")
    assert done.code == Outcome.ROLLBACK.code == 15
    assert "the schema forbids it; acme serves 1.1.0 (blue)" in done.error


def test_a_previous_release_that_is_sick_too_calls_for_a_person(jump: JumpHost) -> None:
    jump.wish(smoke={"1.1.0": "no answer", "1.0.0": "no answer either"})
    assert jump.deploy("run").code == Outcome.ROLLBACK.code
    assert jump.serves == "1.0.0"


# ---------------------------------------------------------------- before the site is touched
def test_a_refused_bundle_ends_it(jump: JumpHost) -> None:
    jump.wish(refuse="blobs/sha256/77 was altered")
    done = jump.deploy("run")
    assert done.code == Outcome.IMPORT.code == 10
    assert verbs(jump) == ["import"]
    assert "airlift-1.1.0-amd64.tar: blobs/sha256/77 was altered (exit code 12)" in done.error
    assert "Next: copy the bundle again" in done.output


def test_a_bundle_of_another_release_than_the_named_one_ends_it(jump: JumpHost) -> None:
    done = jump.deploy("run", DEPLOY_RELEASE="1.2.0")
    assert done.code == Outcome.IMPORT.code
    assert "the bundle is of release 1.1.0, not 1.2.0" in done.error
    assert jump.serves == "1.0.0"


@pytest.mark.parametrize("playbook", ["preflight", "upgrade"])
def test_what_preflight_or_the_plan_finds_ends_it(jump: JumpHost, playbook: str) -> None:
    jump.wish(fail={playbook: "app-2: 1.2 GB of disk, needs 4 GB"})
    done = jump.deploy("preflight" if playbook == "upgrade" else "run")
    assert done.code == Outcome.PREFLIGHT.code == 11
    assert "app-2: 1.2 GB of disk, needs 4 GB" in done.error
    assert "upgrade" not in jump.calls
    assert jump.serves == "1.0.0"


def test_each_finding_of_preflight_is_in_the_summary_with_its_fix(jump: JumpHost) -> None:
    fix = "free some room on app-2"
    one = {"host": "app-2", "fact": "1.2 GB of disk free", "fix": fix, "check": "disk"}
    two = {"host": "site", "fact": "app_api_keys is empty", "fix": "make one", "check": "keys"}
    jump.wish(fail={"preflight": "2 findings in the table above"}, findings=[one, two])
    done = jump.deploy("preflight")
    assert done.code == Outcome.PREFLIGHT.code
    said = f"app-2: 1.2 GB of disk free ({fix}); site: app_api_keys is empty (make one)"
    assert said in done.summary
    # Findings of an earlier run do not apply to this one.
    os.utime(jump.site / ".airlift" / "preflight.json", (1, 1))
    jump.wish(findings=[])
    assert "preflight.yml: 2 findings in the table above" in jump.deploy("preflight").summary


def test_a_gate_that_fails_is_told_with_what_serves(jump: JumpHost) -> None:
    jump.wish(imported=["1.0.0", "1.1.0"], fail={"upgrade": "app-green is not ready"})
    done = jump.deploy("upgrade")
    assert done.code == Outcome.UPGRADE.code == 12
    assert "app-green is not ready; acme serves 1.0.0 (blue)" in done.error
    assert done.values["switched"] == "false"


def test_a_site_that_cannot_be_asked_is_not_upgraded(jump: JumpHost) -> None:
    jump.wish(silent=True)
    done = jump.deploy("upgrade")
    assert done.code == Outcome.SETUP.code
    assert "upgrade" not in jump.calls


def test_an_old_report_of_status_counts_for_nothing(jump: JumpHost) -> None:
    jump.deploy("smoke")
    report = jump.site / ".airlift" / "status.json"
    os.utime(report, (1, 1))
    jump.wish(silent=True)
    assert jump.deploy("smoke").code == Outcome.SETUP.code


# ---------------------------------------------------------------- step by step, as a workflow does
def test_the_phases_one_by_one_are_the_whole(jump: JumpHost) -> None:
    for phase in ("import", "preflight", "upgrade", "smoke"):
        done = jump.deploy(phase, DEPLOY_RELEASE="1.1.0")
        assert done.code == 0, done.output
    assert verbs(jump) == IN_ORDER
    assert jump.serves == "1.1.0"


def test_a_rollback_goes_back_only_from_the_release_that_is_meant(jump: JumpHost) -> None:
    done = jump.deploy("rollback", DEPLOY_RELEASE="1.1.0")
    assert done.code == 0
    assert "not needed: 1.0.0 (blue) serves, not 1.1.0" in done.output
    assert verbs(jump) == []


def test_a_rollback_that_was_interrupted_is_continued(jump: JumpHost) -> None:
    jump.wish(next="./venv/bin/ansible-playbook -i x playbooks/rollback.yml", previous="1.0.0")
    done = jump.deploy("rollback", DEPLOY_RELEASE="1.1.0")
    assert done.code == 0, done.output
    assert verbs(jump) == ["rollback", "smoke"]


def test_a_rollback_by_hand_goes_back_from_whatever_serves(jump: JumpHost) -> None:
    done = jump.deploy("rollback")
    assert done.code == 0
    assert jump.serves == "0.9.0"
    assert "smoke -e swap_smoke_release=0.9.0" in jump.calls


def test_only_the_named_signer_is_accepted_when_one_is_named(jump: JumpHost) -> None:
    jump.deploy("import", DEPLOY_SIGNER="release@airlift.example")
    words = f"import --home {jump.home} {jump.bundle} --identity release@airlift.example"
    assert jump.calls == [words]


def test_make_runs_the_same(jump: JumpHost) -> None:
    """make exits with 2 for any failure; the files that a deployment writes hold its outcome."""
    for target, code in (("deploy", 0), ("deploy-smoke", 0), ("deploy-rollback", 0)):
        done = subprocess.run(
            ["make", target], cwd=ROOT, env=jump.environment(), capture_output=True, check=False
        )
        assert done.returncode == code, done.stdout.decode() + done.stderr.decode()
    assert jump.serves == "1.0.0"
    assert jump.summary().count("###") == 3


# ---------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"DEPLOY_SITE": ""}, "DEPLOY_SITE is not set"),
        ({"DEPLOY_SITE": "/nowhere"}, "/nowhere is not the inventory of a site"),
        ({"DEPLOY_BUNDLE": ""}, "DEPLOY_BUNDLE is not set"),
        ({"DEPLOY_VAULT_ID": "acme@prompt"}, "a password cannot be typed here"),
        ({"DEPLOY_VAULT_ID": "acme@/nowhere"}, "/nowhere, the vault's password, does not exist"),
        ({"DEPLOY_RELEASE": "latest"}, "'latest', which is not the version of a release"),
        ({"DEPLOY_RELEASE": "1.1"}, "not the version of a release"),
        ({"DEPLOY_RELAESE": "1.1.0"}, "there is no setting DEPLOY_RELAESE"),
        ({"DEPLOY_SETTLE_SECONDS": "soon"}, "give whole seconds"),
    ],
)
def test_a_wrong_setting_is_said_before_anything_is_done(
    jump: JumpHost, change: dict[str, str], said: str
) -> None:
    done = jump.deploy("run", **change)
    assert done.code == Outcome.USAGE.code
    assert said in done.error + done.output
    assert jump.calls == []


def test_a_password_that_others_can_read_is_refused(jump: JumpHost) -> None:
    jump.password.chmod(0o644)
    done = jump.deploy("smoke")
    assert done.code == Outcome.USAGE.code
    assert f"Next: chmod 600 {jump.password}" in done.output


def test_a_program_that_prints_the_password_may_be_read(jump: JumpHost) -> None:
    jump.password.chmod(0o755)
    assert jump.deploy("smoke").code == 0


def test_a_machine_without_airlift_is_told_how_to_begin(jump: JumpHost) -> None:
    done = jump.deploy("run", DEPLOY_HOME="/nowhere")
    assert done.code == Outcome.SETUP.code == 3
    assert "by hand, as in docs/TRUST.md" in done.output


def test_a_site_that_is_not_installed_is_not_upgraded(jump: JumpHost) -> None:
    (jump.site / ".airlift" / "tls" / "ca.pem").unlink()
    done = jump.deploy("run")
    assert done.code == Outcome.SETUP.code
    assert "playbooks/install.yml" in done.output


def test_a_folder_with_one_bundle_is_as_good_as_its_name(jump: JumpHost) -> None:
    assert jump.deploy("import", DEPLOY_BUNDLE=str(jump.bundle.parent)).code == 0
    jump.make_bundle("1.2.0")
    done = jump.deploy("import", DEPLOY_BUNDLE=str(jump.bundle.parent))
    assert done.code == Outcome.USAGE.code
    assert "airlift-1.1.0-amd64.tar, airlift-1.2.0-amd64.tar" in done.error
    named = jump.deploy("import", DEPLOY_BUNDLE=str(jump.bundle.parent), DEPLOY_RELEASE="v1.2.0")
    assert named.code == 0, named.error


# ---------------------------------------------------------------- concurrent and interrupted runs
def test_two_deployments_of_a_site_do_not_run_at_once(jump: JumpHost) -> None:
    with (jump.site / ".airlift" / "deploy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = jump.deploy("upgrade")
    assert done.code == Outcome.BUSY.code == 4
    assert jump.calls == []


def test_what_an_interrupted_run_brought_is_taken_back_by_the_one_that_continues_it(
    jump: JumpHost,
) -> None:
    """The second run finds the new release active and must still know who deployed it."""
    jump.wish(hang=["upgrade, late"], smoke={"1.1.0": "no answer"})
    with jump.start("run") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "The switch" in line:
                break
        process.terminate()
        process.communicate(timeout=60)
    assert jump.serves == "1.1.0"
    jump.wish(hang=[])
    done = jump.deploy("run")
    assert done.code == Outcome.ROLLED_BACK.code, done.output
    assert (done.values["previous"], done.values["switched"]) == ("1.0.0", "true")
    assert jump.serves == "1.0.0"


def test_what_passed_the_smoke_test_once_is_not_taken_back_later(jump: JumpHost) -> None:
    jump.deploy("run")
    jump.wish(smoke={"1.1.0": "no answer"})
    assert jump.deploy("run").code == Outcome.SMOKE.code
    assert jump.serves == "1.1.0"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_playbook_and_leaves_a_summary(
    jump: JumpHost, number: signal.Signals
) -> None:
    jump.wish(hang=["upgrade"], imported=["1.0.0", "1.1.0"])
    with jump.start("upgrade") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Images" in line:
                break
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == Outcome.INTERRUPTED.code == 130
    assert re.search(rf"^upgrade     stopped +\d+  by {number.name}$", output, re.MULTILINE)
    assert "| upgrade | stopped | N | by" in jump.summary()
    # No playbook of the run may continue: the process that holds the lock has ended.
    deadline = time.monotonic() + 30
    while alive(jump):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(jump: JumpHost) -> bool:
    """Return whether a playbook of this test still runs."""
    mark = f"{jump.root}/".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ansible-playbook" in (found := path.read_bytes()) and mark in found:
                return True
        except OSError:
            continue
    return False


# ---------------------------------------------------------------- output for a pipeline
def test_inside_github_the_log_is_folded_and_obeys_no_playbook(jump: JumpHost) -> None:
    jump.wish(fail={"smoke": "::add-mask::x"})
    output = jump.deploy("smoke", GITHUB_ACTIONS="true").output
    start, end = output.index("::stop-commands::"), output.index("::endgroup::")
    token = output[start:].split("::")[2].split()[0]
    assert f"\n::{token}::\n" in output[start:end]
    assert "::add-mask::x" in output[start : output.index(f"\n::{token}::\n")]


def test_words_of_a_failed_service_are_no_markup_on_the_page(jump: JumpHost) -> None:
    jump.wish(fail={"smoke": "<img src=x> | `x`"})
    summary = jump.deploy("smoke").summary
    assert "&lt;img src=x&gt; \\| 'x'" in summary


def test_no_secret_is_in_an_argument_or_an_output(jump: JumpHost) -> None:
    done = jump.deploy("run")
    assert "the vault's password" not in done.output + done.error + done.summary
    assert not [call for call in jump.calls if "the vault's password" in call]


def test_a_summary_that_cannot_be_written_stops_no_deployment(jump: JumpHost) -> None:
    done = jump.deploy("smoke", DEPLOY_SUMMARY="/nowhere/summary", DEPLOY_OUTPUT="/nowhere/out")
    assert done.code == 0
    assert "warning: cannot write /nowhere/summary" in done.output


def test_help_names_every_phase_setting_and_exit_code(jump: JumpHost) -> None:
    done = jump.deploy("--help")
    assert done.code == 0
    for word in [*NEEDED, *NAMES, *(one.meaning for one in Outcome)]:
        assert word in done.output
    assert jump.deploy("retire").code == Outcome.USAGE.code


def test_each_end_has_a_code_of_its_own() -> None:
    assert len({one.code for one in Outcome}) == len(Outcome)
    assert set(ON_SITE) < set(NEEDED)
    assert json.dumps([one.label for one in Outcome])
