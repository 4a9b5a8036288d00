"""Guarantees of the swap agent, with a fake engine and a fake Nginx."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from swap_agent import __main__ as command
from swap_agent import swap
from swap_agent.state import COLOURS, Settings, SwapError, exclusive

from tests.unit.roles.conftest import ROOT, load
from tests.unit.site.swapkit import World


def test_first_installation_starts_blue_and_records_it(world: World) -> None:
    answer = world.apply()
    assert answer["changed"]
    assert world.state()["active"] == "blue"
    assert world.state()["generation"] == world.edge.live_generation() == 1
    assert (world.edge.live / "upstream.conf").read_text() == "# upstreams/blue.conf\n"
    assert "hup" not in world.calls, "nothing runs yet, so nothing is reloaded"


def test_nginx_may_enter_whatever_the_callers_umask_is(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """sudo may have the umask 0077, and Nginx runs as another user."""
    settings = dataclasses.asdict(world.settings) | {"root": str(world.settings.root)}
    settings |= {name: str(settings[name]) for name in ("state_file", "watch_dir")}
    (tmp_path / "swap.json").write_text(json.dumps(settings))
    words = ["--settings", str(tmp_path / "swap.json"), "apply", "--release", "1.0.0"]
    monkeypatch.setattr(sys, "argv", ["airlift-swap", *words, "--serial", "1"])
    before = os.umask(0o077)
    try:
        command.main()
    finally:
        os.umask(before)
    places = [world.edge.trees, *(one for one in world.edge.trees.rglob("*") if one.is_dir())]
    assert len(places) > 2
    assert {path.stat().st_mode & 0o777 for path in places} == {0o755}


def test_a_second_run_changes_nothing(world: World) -> None:
    world.apply()
    world.start()
    before = sorted(str(path) for path in world.root.rglob("*"))
    assert not world.apply()["changed"]
    assert sorted(str(path) for path in world.root.rglob("*")) == before
    assert "hup" not in world.calls


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
    with pytest.raises(SwapError, match="generation 1 is active again"):
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
    assert answer["why"] == "the live tree was not active yet"
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
    for name in ("root", "state_file", "watch_dir"):
        data[name] = str(data[name])
    data["files"] = list(data["files"])
    path = tmp_path / "swap.json"
    path.write_text(json.dumps(data))
    assert Settings.load(path) == world.settings
    # Load a file that an older release wrote.
    del data["watch_dir"]
    path.write_text(json.dumps(data))
    assert Settings.load(path).watch_dir == Path("/run/airlift")
    path.write_text(json.dumps({**data, "colour": "blue"}))
    with pytest.raises(SwapError, match="settings"):
        Settings.load(path)


def test_the_site_has_the_colours_that_the_agent_knows() -> None:
    site = load("site", "vars/main.yml")["site_colours"]
    choices = load("app", "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert list(COLOURS) == site == choices["app_colour"]["choices"]


def test_it_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    launcher = (ROOT / "roles/swap_agent/files/airlift-swap").read_text()
    library = "/usr/local/lib/airlift"
    assert library in launcher
    script = tmp_path / "airlift-swap"
    script.write_text(launcher.replace(library, str(ROOT / "roles/swap_agent/files")))
    command = ["/usr/bin/python3", "-I", "-S", "-B", str(script), "--help"]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "switch" in done.stdout


# ---------------------------------------------------------------- the switch
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
    assert serving.calls.count("hup") == 1


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
    with pytest.raises(SwapError, match="generation 1 is active again"):
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
    assert serving.state()["active"] == "green", "the new colour serves before the end"
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


def test_other_settings_go_to_the_other_colour_and_the_way_back_stays(serving: World) -> None:
    serving.switch()
    until = serving.held().warm_until
    swap.retire(serving.edge, run="run-1", returns=True)
    assert (serving.held().standby, serving.held().warm_until) == (None, until)
    assert serving.switch("blue")["changed"]
    held = serving.held()
    assert (held.active, held.standby, held.release, held.serial) == ("blue", None, "1.1.0", 2)
    assert (held.previous_release, held.previous_serial, held.warm_until) == ("1.0.0", 1, until)
    assert (serving.edge.live / "upstream.conf").read_text() == "# upstreams/blue.conf\n"
    assert swap.stand_by(serving.edge, run="run-1")["changed"]
    assert (serving.held().standby, serving.held().warm_until) == ("green", until)
    assert (serving.edge.live / "upstream.conf").read_text() == "# upstreams/blue-green.conf\n"
    assert not swap.stand_by(serving.edge, run="run-1")["changed"]


def test_a_standby_returns_without_waiting_for_old_workers(serving: World) -> None:
    """They serve the active colour, which stays; what stops one waits for them."""
    serving.switch()
    swap.retire(serving.edge, run="run-1", returns=True)
    serving.slow = True
    assert swap.stand_by(serving.edge, run="run-1")["changed"]
    assert serving.retiring, "they still serve"
    with pytest.raises(SwapError, match="nothing may stop before they end"):
        swap.retire(serving.edge, run="run-1")


def test_other_settings_that_fail_are_undone(serving: World) -> None:
    serving.switch()
    serving.end()
    serving.lock("run-2")
    serving.begin("run-2", "install", release="1.1.0")
    swap.retire(serving.edge, run="run-2", returns=True)
    before = serving.held()
    serving.switch("blue", run="run-2")
    swap.undo(serving.edge, run="run-2")
    assert dataclasses.replace(serving.held(), generation=0) == dataclasses.replace(
        before, generation=0
    )


def test_without_a_release_to_go_back_to_nothing_stands_by(serving: World) -> None:
    swap.retire(serving.edge, run="run-1", returns=True)
    serving.switch(release="1.0.0", serial=1)
    held = serving.held()
    assert (held.active, held.standby, held.previous_release) == ("green", None, None)
    with pytest.raises(SwapError, match="no standby is to be restored"):
        swap.stand_by(serving.edge, run="run-1")


def test_a_standby_that_is_retired_for_good_does_not_return(serving: World) -> None:
    serving.switch()
    swap.retire(serving.edge, run="run-1", returns=True)
    swap.retire(serving.edge, run="run-1")
    assert serving.held().warm_until is None
