"""A plan is bound to the state that it saw, and a lock to its playbook: real playbooks."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from swap_agent.journal import Journal

from tests.unit.roles.conftest import ROOT, load
from tests.unit.site.playkit import OTHER, Desk, command, role

pytestmark = pytest.mark.slow

PLAN = role("rollback_plan")
#: rollback.yml locks as the release that the plan leads to.
LOCK = {
    "name": "Lock",
    "ansible.builtin.include_role": {"name": "swap", "tasks_from": "lock"},
    "vars": {
        "swap_verb": "rollback",
        "swap_replan": "rollback_plan.yml",
        "site_manifest_file": "{{ swap_releases }}/{{ swap_planned.to.release }}/manifest.json",
    },
}
GOES = "GOES TO {{ swap_planned.to.release }}"
GO: dict[str, Any] = {"name": "Go", "ansible.builtin.debug": {"msg": GOES}}
AGAIN = "another run changed desk after the plan was made; planning again"
BACK = "desk: roll back from 1.1.0 (blue) to 1.0.0 (green), from its pinned images"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.serve("1.1.0", 5)
    return made


def aims(desk: Desk) -> list[str]:
    """Return the releases that this run recorded as its aim."""
    records = Journal(desk.swap / "journal").records()
    mine = [one for one in records if one["run"] != OTHER and one["event"] == "intent"]
    return [one["data"]["release"] for one in mine]


# ---------------------------------------------------------------- the plan
def test_a_plan_that_saw_a_dead_run_is_made_once(desk: Desk) -> None:
    """Taking over its lock is no change, because the plan knows what the run left."""
    aim = json.dumps({"release": "1.1.0", "serial": 2})
    words = ["--owner", "ann", "--verb", "upgrade", "--data", aim, "--seconds=-1"]
    desk.call("lock", "--run", OTHER, *words)
    code, said = desk.play(PLAN, LOCK, GO)
    assert code == 0, said
    assert said.count(BACK) == 1
    assert AGAIN not in said
    assert "GOES TO 1.0.0" in said
    assert aims(desk) == ["1.0.0"]
    assert desk.lease().epoch == 2


def test_nothing_is_done_that_the_site_no_longer_asks_for(desk: Desk) -> None:
    """Another operator rolled back meanwhile, so a second rollback would go forward."""
    lock = desk.other("lock", "--owner", "ann", "--verb", "rollback")
    state = json.loads((desk.swap / "state.json").read_text())
    desk.serve("1.0.0", 6, "green")
    after = (desk.swap / "state.json").read_text()
    (desk.swap / "state.json").write_text(json.dumps(state))
    write = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    switch = [sys.executable, "-c", write, str(desk.swap / "state.json"), after]
    between = [command("Begin", *lock), command("Switch", *switch)]
    code, said = desk.play(PLAN, *between, command("End", *desk.other("unlock")), LOCK, GO)
    assert code == 2, said
    assert AGAIN in said
    assert "the site was already rolled back to 1.0.0" in " ".join(said.split())
    assert "upgrade.yml; nothing was changed" in " ".join(said.split())
    assert "GOES TO" not in said
    shown = json.loads(desk.call("show"))
    assert (shown["lease"], shown["unfinished"]) == (None, [])
    assert shown["last_run"]["event"] == "failed"
    assert shown["last_run"]["data"]["release"] == "1.0.0"
    assert "was already rolled back to 1.0.0" in shown["last_run"]["data"]["why"]


def test_a_new_plan_may_lead_elsewhere(desk: Desk) -> None:
    """The upgrade that the plan would cancel was ended by hand.

    test_swap_lease.py has other changes by another run.
    """
    aim = json.dumps({"release": "1.2.0", "serial": 3})
    desk.call("lock", "--run", OTHER, "--owner", "ann", "--verb", "upgrade", "--data", aim)
    end = desk.other("unlock", "--failed", "it was dead")
    code, said = desk.play(PLAN, command("End", *end), LOCK, GO)
    assert code == 0, said
    assert "the upgrade to 1.2.0 had not switched" in said
    assert AGAIN in said
    assert said.count(BACK) == 1
    assert desk.lease().run != OTHER
    assert "GOES TO 1.0.0" in said
    assert aims(desk) == ["1.2.0", "1.0.0"]


def test_an_agent_of_release_1_0_0_is_planned_with_twice(desk: Desk) -> None:
    """This agent reports no change in between, and has no heartbeat."""
    desk.make_agent_old()
    code, said = desk.play(PLAN, LOCK, GO)
    assert code == 0, said
    assert said.count(BACK) == 2
    assert AGAIN not in said
    assert desk.lease().left() > 3000


def test_an_installation_judges_the_release_again_inside_the_lock(desk: Desk) -> None:
    guard = {**role("guard"), "tags": ["always"]}
    lock = {**role("lock", swap_verb="install", swap_replan="guard.yml"), "tags": ["always"]}
    code, said = desk.play(guard, lock, options=["-v", "--tags", "tls"])
    assert code == 0, said
    # Nothing has changed, so the release is checked once.
    assert said.count("Require the release that the site already runs") == 1
    desk.call("unlock", "--run", desk.lease().run)
    desk.serve("1.1.0", 5)
    before = (desk.swap / "state.json").read_text()
    desk.serve("1.2.0", 6)
    after = (desk.swap / "state.json").read_text()
    (desk.swap / "state.json").write_text(before)
    write = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    switch = [sys.executable, "-c", write, str(desk.swap / "state.json"), after]
    code, said = desk.play(guard, command("Switch", *switch), lock, GO)
    assert code == 2, said
    assert "desk runs release 1.2.0 (serial 3); this is release 1.1.0" in " ".join(said.split())
    shown = json.loads(desk.call("show"))
    assert (shown["lease"], shown["last_run"]["event"]) == (None, "failed")


@pytest.mark.slow
def test_a_rollback_without_the_smoke_tests_key_changes_nothing(desk: Desk) -> None:
    """A key that a second jump host made would be refused, and the rollback undone."""
    (desk.root / "site/.airlift/smoke.key").unlink()
    before = json.loads(desk.call("show"))
    code, said = desk.play(PLAN)
    assert code == 2, said
    assert "this jump host does not have the smoke test's key of desk" in " ".join(said.split())
    assert json.loads(desk.call("show"))["seen"] == before["seen"]


def test_whoever_plans_names_its_plan_to_the_lock() -> None:
    """Each is the file that planned; a retirement reads its facts after the lock."""
    named = {}
    for name in ("main", "rollback_apply"):
        (lock,) = [one for one in load("swap", f"tasks/{name}.yml") if one["name"] == "Lock"]
        named[name] = lock["vars"]["swap_replan"]
    assert named == {"main": "plan.yml", "rollback_apply": "rollback_plan.yml"}
    install = (ROOT / "playbooks/install.yml").read_text()
    assert "swap_verb: install\n        swap_replan: guard.yml\n" in install
    steps = [one["name"] for one in load("swap", "tasks/retire.yml")]
    assert steps.index("Lock") < steps.index("Stop sending requests to the standby")


# ---------------------------------------------------------------- the heartbeat
@pytest.fixture
def beating(tmp_path: Path) -> Desk:
    made = Desk(tmp_path, every=0.2)
    made.serve("1.1.0", 5)
    return made


def hearts(desk: Desk) -> list[int]:
    """Return the processes of the playbook that still exist."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(desk.root / "releases/1.1.0/playbooks/play.yml").encode() in words:
            found.append(int(path.parent.name))
    return found


def over(desk: Desk) -> None:
    """Check that nothing of a playbook remains."""
    deadline = time.monotonic() + 60
    while left := hearts(desk):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


#: A step that lasts until it has seen some heartbeats.
LONG = """
import json, sys, time
seen = set()
while len(seen) < 4:
    seen.add(json.load(open(sys.argv[1]))["until"])
    time.sleep(0.05)
"""


def long(desk: Desk, code: str = LONG) -> dict[str, Any]:
    return command("Long", sys.executable, "-c", code, str(desk.swap / "lease.pulse"))


def test_a_lease_is_kept_during_a_step_and_not_after_the_playbook(beating: Desk) -> None:
    end = role("unlock")
    code, said = beating.play(PLAN, LOCK, long(beating), end)
    assert code == 0, said
    # No other run came in between, so the plan is made once.
    assert said.count(BACK) == 1
    assert AGAIN not in said
    assert aims(beating) == ["1.0.0"]
    over(beating)
    assert beating.lease().given_back()
    assert [event for _, _, event in beating.journal()] == ["intent", "done"]


def test_a_playbook_that_is_killed_gives_no_more_signs_of_life(beating: Desk) -> None:
    forever = LONG + "import os\n"
    forever += (
        "print(os.getpid(), file=open(sys.argv[1] + '.seen', 'w'), flush=True)\ntime.sleep(600)\n"
    )
    with beating.run(PLAN, LOCK, long(beating, forever)) as running:
        seen = beating.swap / "lease.pulse.seen"
        while not seen.exists() or not seen.read_text():
            assert running.poll() is None, running.stdout and running.stdout.read()
            time.sleep(0.05)
        assert len(hearts(beating)) >= 2
        assert 100 < beating.lease().left() < 181
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    text = ""
    deadline = time.monotonic() + 60
    while text != (text := (beating.swap / "lease.pulse").read_text()):
        assert time.monotonic() < deadline, "heartbeats continue"
        time.sleep(3)
    # Only the step itself remains, and the worker that waits for it.
    os.kill(int(seen.read_text()), signal.SIGKILL)
    over(beating)
