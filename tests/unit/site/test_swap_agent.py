"""The swap agent's promises, with an engine and an Nginx of paper."""

import dataclasses
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from swap_agent import lease, nginx, runs, swap
from swap_agent.nginx import Edge
from swap_agent.state import Settings, State, SwapError, exclusive

from tests.unit.roles.conftest import ROOT

FILES = ("nginx.conf", "conf.d/site.conf", "tls/edge.key")


class World:
    """A host with an engine whose Nginx serves what it last reloaded."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.running = False
        self.serving: int | None = None
        self.refuses = ""
        self.deaf = False
        self.calls: list[str] = []
        self.workers = {100}
        self.retiring: set[int] = set()
        self.slow = False
        self.settings = Settings(
            root=root / "edge",
            state_file=root / "swap/state.json",
            files=FILES,
            container="airlift-edge",
            image="sha256:nginx",
            user="101:101",
            probe_address="127.0.0.1",
            probe_port=1,
            reload_timeout=0.0,
            drain_timeout=0.0,
            agent_timeout=0.0,
        )
        self.edge = Edge(self.settings)
        for name in (
            *FILES,
            "upstreams/blue.conf",
            "upstreams/green.conf",
            "upstreams/green-blue.conf",
            "upstreams/blue-green.conf",
        ):
            path = self.edge.desired / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# {name}\n")
        (self.edge.desired / "tls/edge.key").chmod(0o400)

    def engine(self, *arguments: str, **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(arguments[0])
        said, code, errors = "", 0, ""
        if arguments[0] == "run" and self.refuses:
            code, errors = 1, self.refuses
        if arguments[0] == "inspect":
            said = f"{'true' if self.running else 'false'} sha256:running"
        if arguments[0] == "kill" and not self.deaf:
            self.serving = self.edge.live_generation()
            self.retiring = self.workers if self.slow else set()
            self.workers = {max(self.workers) + 1}
        if arguments[0] == "top":
            lines = [f"{pid} nginx: worker process" for pid in self.workers]
            lines += [f"{pid} nginx: worker process is shutting down" for pid in self.retiring]
            said = "\n".join(["PID COMMAND", "99 nginx: master process nginx", *lines])
        return subprocess.CompletedProcess(arguments, code, said, errors)

    def start(self) -> None:
        self.running, self.serving = True, self.edge.live_generation()

    def apply(self, release: str = "1.0.0", serial: int = 1) -> dict[str, Any]:
        return swap.apply(self.edge, release, serial)

    def held(self) -> State:
        found = State.load(self.settings.state_file)
        assert found is not None
        return found

    def lock(self, run: str = "run-1", seconds: float = 60) -> lease.Lease:
        return lease.acquire(
            swap.lease_file(self.edge), run=run, owner="ann", verb="upgrade", seconds=seconds
        )

    def switch(
        self, to: str = "green", release: str = "1.1.0", serial: int = 2, run: str = "run-1"
    ) -> dict[str, Any]:
        return swap.switch(self.edge, run=run, to=to, release=release, serial=serial, warm=60)

    def begin(
        self, run: str = "run-1", verb: str = "upgrade", instead_of: str = "", release: str = ""
    ) -> None:
        data = {"release": release} if release else {}
        runs.begin(
            self.edge,
            run=run,
            owner="ann",
            verb=verb,
            seconds=60,
            instead_of=instead_of,
            data=data,
        )

    def step(self, name: str, run: str = "run-1") -> None:
        runs.step(self.edge, run=run, name=name, seconds=60)

    def end(self, why: str = "", run: str = "run-1") -> None:
        runs.end(self.edge, run=run, why=why, data={})

    def events(self) -> list[tuple[str, str]]:
        return [(r["step"], r["event"]) for r in swap.journal_of(self.edge).records()]

    def want(self, text: str) -> None:
        (self.edge.desired / "nginx.conf").write_text(text)

    def state(self) -> dict[str, Any]:
        held: dict[str, Any] = json.loads(self.settings.state_file.read_text())
        return held


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(nginx, "engine", made.engine)
    monkeypatch.setattr(swap, "engine", made.engine)
    monkeypatch.setattr(nginx, "started", lambda _: "1")
    monkeypatch.setattr(Edge, "answered", lambda _: made.serving)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return made


def test_first_installation_starts_blue_and_records_it(world: World) -> None:
    answer = world.apply()
    assert answer["changed"]
    assert world.state()["active"] == "blue"
    assert world.state()["generation"] == world.edge.live_generation() == 1
    assert (world.edge.live / "upstream.conf").read_text() == "# upstreams/blue.conf\n"
    assert "kill" not in world.calls, "nothing runs yet, so nothing is reloaded"


def test_a_second_run_changes_nothing(world: World) -> None:
    world.apply()
    world.start()
    before = sorted(str(path) for path in world.root.rglob("*"))
    assert not world.apply()["changed"]
    assert sorted(str(path) for path in world.root.rglob("*")) == before
    assert "kill" not in world.calls


def test_a_new_configuration_is_a_new_generation_in_service(world: World) -> None:
    world.apply()
    world.start()
    world.want("changed")
    assert world.apply()["generation"] == 2
    assert world.serving == 2
    assert (world.edge.live / "nginx.conf").read_text() == "changed"


def test_a_refused_configuration_is_never_in_place(world: World) -> None:
    world.apply()
    world.start()
    world.want("bogus")
    world.refuses = "unknown directive"
    with pytest.raises(SwapError, match="unknown directive"):
        world.apply()
    assert world.edge.live_generation() == world.serving == 1
    assert (world.edge.live / "nginx.conf").read_text() == "# nginx.conf\n"


def test_a_reload_that_does_not_take_is_undone(world: World) -> None:
    world.apply()
    world.start()
    world.want("port is taken")
    world.deaf = True
    with pytest.raises(SwapError, match="generation 1 is back in service"):
        world.apply()
    assert world.edge.live_generation() == 1
    assert world.state()["generation"] == 1
    world.deaf = False
    assert world.apply()["generation"] == 2, "the same command finishes the work later"


def test_a_run_that_died_between_rename_and_reload_is_finished(world: World) -> None:
    world.apply()
    world.start()
    world.want("changed")
    staged = world.edge.stage(2, world.held())
    tree = staged.with_name("000002")
    staged.rename(tree)
    world.edge.point(tree)
    assert world.serving == 1
    answer = world.apply()
    assert answer["changed"]
    assert answer["why"] == "the live tree was not in service yet"
    assert world.serving == world.state()["generation"] == 2


def test_leftovers_of_a_killed_run_are_in_nobodys_way(world: World) -> None:
    world.apply()
    (world.edge.trees / "000002.staged" / "conf.d").mkdir(parents=True)
    (world.edge.trees / "000002").mkdir()
    world.want("changed")
    assert world.apply()["generation"] == 2
    assert sorted(path.name for path in world.edge.trees.iterdir()) == ["000001", "000002"]


def test_a_release_is_never_changed_by_install(world: World) -> None:
    world.apply()
    with pytest.raises(SwapError, match=r"serves release 1\.0\.0 .* by upgrade"):
        world.apply("1.1.0", 2)


def test_the_active_colour_stays(world: World) -> None:
    world.apply()
    dataclasses.replace(world.held(), active="green", standby="blue").save(
        world.settings.state_file
    )
    assert world.apply()["active"] == "green"
    assert (world.edge.live / "upstream.conf").read_text() == "# upstreams/green-blue.conf\n"


def test_a_missing_file_is_named(world: World) -> None:
    (world.edge.desired / "conf.d/site.conf").unlink()
    with pytest.raises(SwapError, match=r"conf\.d/site\.conf"):
        world.apply()


def test_the_key_keeps_its_mode(world: World) -> None:
    world.apply()
    assert (world.edge.live / "tls/edge.key").stat().st_mode & 0o777 == 0o400


def test_old_trees_are_pruned_but_the_last_ones_kept(world: World) -> None:
    for number in range(6):
        world.want(f"version {number}")
        world.apply()
    assert sorted(p.name for p in world.edge.trees.iterdir()) == ["000004", "000005", "000006"]


def test_one_agent_at_a_time(world: World) -> None:
    with (
        exclusive(world.settings),
        pytest.raises(SwapError, match="another airlift-swap"),
        exclusive(world.settings),
    ):
        pass


def test_a_damaged_state_is_an_error_not_a_new_site(world: World) -> None:
    world.settings.state_file.parent.mkdir(parents=True)
    world.settings.state_file.write_text("{")
    with pytest.raises(SwapError, match="cannot be read"):
        world.apply()


def test_settings_come_from_the_file_that_the_role_writes(world: World, tmp_path: Path) -> None:
    data = {**dataclasses.asdict(world.settings)}
    data["root"], data["state_file"] = str(data["root"]), str(data["state_file"])
    data["files"] = list(data["files"])
    path = tmp_path / "swap.json"
    path.write_text(json.dumps(data))
    assert Settings.load(path) == world.settings
    path.write_text(json.dumps({**data, "colour": "blue"}))
    with pytest.raises(SwapError, match="settings"):
        Settings.load(path)


def test_it_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    launcher = (ROOT / "roles/edge/files/airlift-swap").read_text()
    library = "/usr/local/lib/airlift"
    assert library in launcher
    script = tmp_path / "airlift-swap"
    script.write_text(launcher.replace(library, str(ROOT / "roles/edge/files")))
    command = ["/usr/bin/python3", "-I", "-S", "-B", str(script), "--help"]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "switch" in done.stdout


# ---------------------------------------------------------------- the switch
@pytest.fixture
def serving(world: World) -> World:
    """A site that serves 1.0.0 with blue, and a run that may change it."""
    world.apply()
    world.start()
    world.lock()
    return world


def test_a_switch_puts_the_other_colour_in_service_and_keeps_the_old_one(serving: World) -> None:
    answer = serving.switch()
    assert answer["changed"]
    assert (answer["active"], answer["standby"]) == ("green", "blue")
    assert (answer["release"], answer["previous_release"]) == ("1.1.0", "1.0.0")
    assert (serving.edge.live / "upstream.conf").read_text() == "# upstreams/green-blue.conf\n"
    assert serving.serving == serving.state()["generation"] == 2
    assert serving.events() == [("switch", "intent"), ("switch", "done")]


def test_a_second_switch_to_the_same_changes_nothing(serving: World) -> None:
    serving.switch()
    assert not serving.switch()["changed"]
    assert serving.events() == [("switch", "intent"), ("switch", "done")]
    assert serving.calls.count("kill") == 1


def test_a_rollback_is_a_switch_back(serving: World) -> None:
    serving.switch()
    answer = serving.switch("blue", "1.0.0", 1)
    assert (answer["active"], answer["standby"], answer["release"]) == ("blue", "green", "1.0.0")
    assert (serving.edge.live / "upstream.conf").read_text() == "# upstreams/blue-green.conf\n"


def test_the_colour_that_serves_gets_no_other_release(serving: World) -> None:
    with pytest.raises(SwapError, match="the other colour"):
        serving.switch("blue", "1.1.0", 2)


def test_a_switch_that_does_not_take_leaves_the_old_colour(serving: World) -> None:
    serving.deaf = True
    with pytest.raises(SwapError, match="generation 1 is back in service"):
        serving.switch()
    assert serving.state()["active"] == "blue"
    assert serving.edge.live_generation() == 1
    assert serving.events() == [("switch", "intent"), ("switch", "failed")]
    serving.deaf = False
    assert serving.switch()["active"] == "green"


def test_nothing_is_over_before_the_old_workers_are_gone(serving: World) -> None:
    serving.slow = True
    with pytest.raises(SwapError, match=r"workers 100 .* nothing may stop"):
        serving.switch()
    with pytest.raises(SwapError, match="workers 100"):
        serving.switch()
    assert serving.state()["active"] == "green", "it serves; only the end is not reached"
    serving.retiring = set()
    assert not serving.switch()["changed"]


def test_a_switch_cut_off_after_the_rename_is_finished(serving: World) -> None:
    swap.journal_of(serving.edge).append("run-1", "switch", "intent")
    staged = serving.edge.stage(2, swap.target(serving.held(), "green", "1.1.0", 2, 60))
    tree = staged.with_name("000002")
    staged.rename(tree)
    serving.edge.point(tree)
    shown = swap.show(serving.edge)
    assert (shown["active"], shown["served_generation"], shown["live_generation"]) == ("blue", 1, 2)
    assert [record["step"] for record in shown["unfinished"]] == ["switch"]
    assert serving.switch()["changed"]
    assert serving.state()["active"] == "green"
    assert serving.serving == 2
    assert swap.show(serving.edge)["unfinished"] == []


def test_the_image_that_runs_is_the_judge(serving: World) -> None:
    assert serving.edge.image() == "sha256:running"
    serving.running = False
    assert serving.edge.image() == "sha256:nginx"


def test_a_retired_standby_gets_nothing_but_is_remembered(serving: World) -> None:
    serving.switch()
    assert swap.retire(serving.edge, run="run-1")["changed"]
    assert (serving.edge.live / "upstream.conf").read_text() == "# upstreams/green.conf\n"
    assert serving.held().standby is None
    assert serving.held().previous_release == "1.0.0"
    assert not swap.retire(serving.edge, run="run-1")["changed"]


# ---------------------------------------------------------------- undo
@pytest.fixture
def upgrading(world: World) -> World:
    """A site that serves 1.0.0 with blue, and an upgrade that has begun."""
    world.apply()
    world.start()
    world.begin()
    return world


def undo(world: World, run: str = "run-1") -> dict[str, Any]:
    return swap.undo(world.edge, run=run)


def test_undo_puts_back_what_served_before_the_run(upgrading: World) -> None:
    before = upgrading.held()
    upgrading.switch()
    answer = undo(upgrading)
    assert answer["changed"]
    assert dataclasses.replace(upgrading.held(), generation=before.generation) == before
    assert (upgrading.edge.live / "upstream.conf").read_text() == "# upstreams/blue.conf\n"
    assert not undo(upgrading)["changed"]


def test_undo_leaves_alone_what_had_not_switched(upgrading: World) -> None:
    swap.retire(upgrading.edge, run="run-1")
    assert not undo(upgrading)["changed"]
    assert upgrading.held().active == "blue"


def test_undo_leaves_alone_what_an_earlier_run_finished(upgrading: World) -> None:
    upgrading.switch()
    upgrading.end()
    upgrading.begin("run-2")
    assert not undo(upgrading, "run-2")["changed"]
    assert upgrading.held().release == "1.1.0"


def test_undo_reaches_back_to_the_run_that_died(upgrading: World) -> None:
    upgrading.switch()
    upgrading.begin("run-2", instead_of="run-1")
    assert undo(upgrading, "run-2")["changed"]
    assert upgrading.held().release == "1.0.0"


def test_an_undo_is_not_undone(upgrading: World) -> None:
    upgrading.switch()
    undo(upgrading)
    upgrading.begin("run-2", instead_of="run-1")
    assert not undo(upgrading, "run-2")["changed"]
    assert upgrading.held().release == "1.0.0"


def test_undo_also_ends_a_switch_that_was_cut_off_before_it_was_recorded(upgrading: World) -> None:
    wanted = swap.target(upgrading.held(), "green", "1.1.0", 2, 60)
    data = {"from": dataclasses.asdict(upgrading.held()), "to": dataclasses.asdict(wanted)}
    swap.journal_of(upgrading.edge).append("run-1", "switch", "intent", data)
    swap.put_in_place(upgrading.edge, wanted)
    dataclasses.replace(State.read(data["from"])).save(upgrading.settings.state_file)
    assert undo(upgrading)["changed"]
    assert (upgrading.edge.live / "upstream.conf").read_text() == "# upstreams/blue.conf\n"
    assert [r["step"] for r in swap.show(upgrading.edge)["unfinished"]] == ["upgrade"]


# ---------------------------------------------------------------- undo after several that died
@pytest.fixture
def rolled(world: World) -> World:
    """An upgrade to 1.1.0 died after its switch, the rollback from it died after its own."""
    world.apply()
    world.start()
    world.begin(release="1.1.0")
    world.switch()
    world.begin("run-2", "rollback", instead_of="run-1", release="1.0.0")
    world.switch("blue", "1.0.0", 1, run="run-2")
    return world


def serves(world: World) -> tuple[str, str, str | None]:
    """Return what serves, by the record and by what Nginx was given; both have to agree."""
    held = world.held()
    name = f"{held.active}-{held.standby}" if held.standby else held.active
    assert (world.edge.live / "upstream.conf").read_text() == f"# upstreams/{name}.conf\n"
    assert world.serving == held.generation
    return held.active, held.release, held.standby


def test_undo_of_a_rollback_that_is_run_again_is_what_it_were_in_one_run(rolled: World) -> None:
    """A gate of it closed: what served before the rollback serves again, and its words say so."""
    rolled.begin("run-3", "rollback", instead_of="run-2", release="1.0.0")
    undo(rolled, "run-3")
    assert serves(rolled) == ("green", "1.1.0", "blue")


def test_undo_of_giving_up_an_upgrade_leaves_what_an_earlier_rollback_did(rolled: World) -> None:
    """Giving up is a rollback in the journal; it names the release that is taken away."""
    rolled.begin("run-3", "rollback", instead_of="run-2", release="1.1.0")
    undo(rolled, "run-3")
    assert serves(rolled) == ("blue", "1.0.0", "green")


def test_undo_of_an_upgrade_whose_earlier_rollback_had_switched(rolled: World) -> None:
    before = rolled.held()
    rolled.begin("run-3", instead_of="run-2", release="1.1.0")
    rolled.switch(run="run-3")
    assert undo(rolled, "run-3")["changed"]
    assert serves(rolled) == ("blue", "1.0.0", "green")
    assert dataclasses.replace(rolled.held(), generation=before.generation) == before


@pytest.mark.parametrize("release", ["1.1.0", "1.2.0"])
def test_undo_of_an_upgrade_before_its_switch_leaves_what_an_earlier_rollback_did(
    rolled: World, release: str
) -> None:
    rolled.begin("run-3", instead_of="run-2", release=release)
    assert not undo(rolled, "run-3")["changed"]
    assert serves(rolled) == ("blue", "1.0.0", "green")


def test_undo_of_an_upgrade_leaves_what_one_to_another_release_did(upgrading: World) -> None:
    """Its colour is taken by then: what had served runs there no more."""
    upgrading.switch()
    upgrading.begin("run-2", instead_of="run-1", release="1.2.0")
    swap.retire(upgrading.edge, run="run-2")
    assert not undo(upgrading, "run-2")["changed"]
    assert serves(upgrading) == ("green", "1.1.0", None)


def test_undo_reaches_back_over_all_runs_with_the_same_aim(rolled: World) -> None:
    """The first one switched; of the others, none came that far."""
    rolled.end(run="run-2")
    rolled.begin("run-3", release="1.1.0")
    rolled.switch(run="run-3")
    for number in (4, 5):
        rolled.begin(f"run-{number}", instead_of=f"run-{number - 1}", release="1.1.0")
        rolled.step("images", f"run-{number}")
    assert undo(rolled, "run-5")["changed"]
    assert serves(rolled) == ("blue", "1.0.0", "green")


@pytest.mark.parametrize("again", [False, True])
def test_undo_leaves_alone_what_came_to_its_finish(upgrading: World, *, again: bool) -> None:
    """Also when the run that finishes it fails of something."""
    upgrading.switch()
    upgrading.step("workers")
    upgrading.step("finish")
    run = "run-1"
    if again:
        run = "run-2"
        upgrading.begin(run, instead_of="run-1")
        upgrading.step("images", run)
        upgrading.switch(run=run)
    assert not undo(upgrading, run)["changed"]
    assert serves(upgrading) == ("green", "1.1.0", "blue")


def test_the_finish_of_one_is_no_finish_of_another(upgrading: World) -> None:
    """A rollback after an upgrade that died while it tidied up is undone as any other."""
    upgrading.switch()
    upgrading.step("finish")
    upgrading.begin("run-2", "rollback", instead_of="run-1", release="1.0.0")
    upgrading.switch("blue", "1.0.0", 1, run="run-2")
    assert undo(upgrading, "run-2")["changed"]
    assert serves(upgrading) == ("green", "1.1.0", "blue")


def test_an_intent_that_is_repeated_counts_from_its_last_record(rolled: World) -> None:
    """By its number a way back is chosen among those that were cut off."""
    rolled.begin("run-3", instead_of="run-2", release="1.1.0")
    left = {record["step"]: record["seq"] for record in swap.show(rolled.edge)["unfinished"]}
    assert left["upgrade"] > left["rollback"]


# ---------------------------------------------------------------- runs
def test_a_run_leaves_its_steps_in_the_journal(upgrading: World) -> None:
    upgrading.step("images")
    upgrading.step("schema")
    assert [r["step"] for r in swap.show(upgrading.edge)["unfinished"]] == ["upgrade", "schema"]
    upgrading.end()
    assert upgrading.events() == [
        ("upgrade", "intent"),
        ("images", "intent"),
        ("images", "done"),
        ("schema", "intent"),
        ("schema", "done"),
        ("upgrade", "done"),
    ]
    shown = swap.show(upgrading.edge)
    assert shown["unfinished"] == []
    assert shown["lease"] is None
    assert shown["last_run"]["event"] == "done"


def test_a_run_that_took_over_ends_the_steps_of_the_dead_one(upgrading: World) -> None:
    upgrading.step("images")
    upgrading.begin("run-2", instead_of="run-1")
    upgrading.end("no room", run="run-2")
    shown = swap.show(upgrading.edge)
    assert shown["unfinished"] == []
    assert shown["last_run"]["data"]["why"] == "no room"


def test_only_a_run_that_is_known_to_be_dead_is_taken_over(upgrading: World) -> None:
    with pytest.raises(lease.HeldError):
        upgrading.begin("run-3", instead_of="run-2")
    upgrading.begin("run-3", instead_of="run-1")
    with pytest.raises(SwapError, match="does not hold"):
        upgrading.step("images")


def test_a_run_that_was_replaced_ends_nothing(upgrading: World) -> None:
    upgrading.begin("run-2", instead_of="run-1")
    upgrading.end("late", run="run-1")
    assert swap.show(upgrading.edge)["lease"]["run"] == "run-2"


# ---------------------------------------------------------------- lease and journal
def test_only_the_holder_of_the_lease_switches(serving: World) -> None:
    with pytest.raises(SwapError, match="run run-2 does not hold the lease"):
        serving.switch(run="run-2")
    assert serving.state()["active"] == "blue"


def test_a_second_run_is_told_who_is_at_work(serving: World) -> None:
    with pytest.raises(SwapError, match=r"ann is at work .* airlift-swap unlock --run run-1"):
        serving.lock("run-2")


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_is_fenced_off(serving: World) -> None:
    assert serving.lock(seconds=-1).epoch == 1
    assert serving.lock("run-2").epoch == 2
    with pytest.raises(SwapError, match="does not hold the lease"):
        serving.switch(run="run-1")


def test_the_epoch_grows_when_a_lease_is_taken_again(serving: World) -> None:
    assert serving.lock().epoch == 1, "prolonged"
    assert lease.release(swap.lease_file(serving.edge), "run-1")
    assert serving.lock("run-2").epoch == 2
    assert not lease.release(swap.lease_file(serving.edge), "run-1")


def test_a_record_that_a_crash_cut_short_never_happened(world: World) -> None:
    journal = swap.journal_of(world.edge)
    journal.append("r", "dump", "intent")
    with journal.path.open("ab") as file:
        file.write(b'{"seq": 2, "st')
    assert [record["seq"] for record in journal.records()] == [1]
    journal.append("r", "dump", "done")
    assert [record["seq"] for record in journal.records()] == [1, 2]
    assert journal.open_steps() == []


def test_a_damaged_record_is_an_error(world: World) -> None:
    journal = swap.journal_of(world.edge)
    journal.append("r", "dump", "intent")
    journal.path.write_bytes(b"junk\n" + journal.path.read_bytes())
    with pytest.raises(SwapError, match="line 1"):
        journal.records()
