"""The swap agent's promises, with an engine and an Nginx of paper."""

import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

FILES = ("nginx.conf", "conf.d/site.conf", "tls/edge.key")


class World:
    """A host with an engine whose Nginx serves what it last reloaded."""

    def __init__(self, agent: ModuleType, root: Path) -> None:
        self.agent, self.root = agent, root
        self.running = False
        self.serving: int | None = None
        self.refuses = ""
        self.deaf = False
        self.calls: list[str] = []
        self.settings = agent.Settings(
            root=root / "edge",
            state_file=root / "swap/state.json",
            files=FILES,
            container="airlift-edge",
            image="sha256:nginx",
            user="101:101",
            probe_address="127.0.0.1",
            probe_port=1,
            reload_timeout=0.0,
        )
        self.edge = agent.Edge(self.settings)
        for name in (*FILES, "upstreams/blue.conf", "upstreams/green-blue.conf"):
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
            said = "true" if self.running else "false"
        if arguments[0] == "kill" and not self.deaf:
            self.serving = self.edge.live_generation()
        return subprocess.CompletedProcess(arguments, code, said, errors)

    def start(self) -> None:
        self.running, self.serving = True, self.edge.live_generation()

    def apply(self, release: str = "1.0.0", serial: int = 1) -> dict[str, Any]:
        arguments = self.agent.argparse.Namespace(release=release, serial=serial)
        answer: dict[str, Any] = self.agent.apply(self.edge, arguments)
        return answer

    def want(self, text: str) -> None:
        (self.edge.desired / "nginx.conf").write_text(text)

    def state(self) -> dict[str, Any]:
        held: dict[str, Any] = json.loads(self.settings.state_file.read_text())
        return held


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    agent = plugin("edge/files/swap_agent.py")
    made = World(agent, tmp_path)
    monkeypatch.setattr(agent, "engine", made.engine)
    monkeypatch.setattr(agent.Edge, "answered", lambda _: made.serving)
    monkeypatch.setattr(agent.time, "sleep", lambda _: None)
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
    with pytest.raises(world.agent.SwapError, match="unknown directive"):
        world.apply()
    assert world.edge.live_generation() == world.serving == 1
    assert (world.edge.live / "nginx.conf").read_text() == "# nginx.conf\n"


def test_a_reload_that_does_not_take_is_undone(world: World) -> None:
    world.apply()
    world.start()
    world.want("port is taken")
    world.deaf = True
    with pytest.raises(world.agent.SwapError, match="generation 1 is back in service"):
        world.apply()
    assert world.edge.live_generation() == 1
    assert world.state()["generation"] == 1
    world.deaf = False
    assert world.apply()["generation"] == 2, "the same command finishes the work later"


def test_a_run_that_died_between_rename_and_reload_is_finished(world: World) -> None:
    world.apply()
    world.start()
    world.want("changed")
    staged = world.edge.stage(2, world.agent.State.load(world.settings.state_file))
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
    with pytest.raises(world.agent.SwapError, match=r"serves release 1\.0\.0 .* by upgrade"):
        world.apply("1.1.0", 2)


def test_the_active_colour_stays(world: World) -> None:
    world.apply()
    state = world.agent.State.load(world.settings.state_file)
    world.agent.dataclasses.replace(state, active="green", standby="blue").save(
        world.settings.state_file
    )
    assert world.apply()["active"] == "green"
    assert (world.edge.live / "upstream.conf").read_text() == "# upstreams/green-blue.conf\n"


def test_a_missing_file_is_named(world: World) -> None:
    (world.edge.desired / "conf.d/site.conf").unlink()
    with pytest.raises(world.agent.SwapError, match=r"conf\.d/site\.conf"):
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
        world.agent.exclusive(world.settings),
        pytest.raises(world.agent.SwapError, match="another airlift-swap"),
        world.agent.exclusive(world.settings),
    ):
        pass


def test_a_damaged_state_is_an_error_not_a_new_site(world: World) -> None:
    world.settings.state_file.parent.mkdir(parents=True)
    world.settings.state_file.write_text("{")
    with pytest.raises(world.agent.SwapError, match="cannot be read"):
        world.apply()


def test_settings_come_from_the_file_that_the_role_writes(world: World, tmp_path: Path) -> None:
    data = {**world.agent.dataclasses.asdict(world.settings)}
    data["root"], data["state_file"] = str(data["root"]), str(data["state_file"])
    data["files"] = list(data["files"])
    path = tmp_path / "swap.json"
    path.write_text(json.dumps(data))
    assert world.agent.Settings.load(path) == world.settings
    path.write_text(json.dumps({**data, "colour": "blue"}))
    with pytest.raises(world.agent.SwapError, match="settings"):
        world.agent.Settings.load(path)


def test_it_needs_nothing_but_the_standard_library() -> None:
    agent = Path(str(plugin("edge/files/swap_agent.py").__file__))
    environment = {"PATH": os.environ["PATH"]}
    command = ["/usr/bin/python3", "-I", "-S", str(agent), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
