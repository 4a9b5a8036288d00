"""The plan of an upgrade and of a rollback: the steps, or every problem."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

module = plugin("swap/filter_plugins/swap_plan.py")
COMMAND = "ansible-playbook playbooks/"


def manifest(version: str, serial: int, head: int, lowest: int) -> dict[str, Any]:
    return {
        "version": version,
        "serial": serial,
        "upgrade": {"minimum_version": "1.0.0", "required_stops": []},
        "schema": {"head": head, "lowest_compatible": lowest},
        "image_source": "debian",
        "components": {
            name: {"manifest_digest": f"m-{name}", "config_digest": f"c-{name}"}
            for name in ("app", "nginx", "postgres", "redis")
        },
    }


def cost(count: int, disk: int, seconds: float = 0) -> dict[str, Any]:
    delivered = ["app"] if count else []
    space = {"disk": disk, "free": 30_000_000_000}
    return {"bytes": count, "seconds": seconds, "delivered": delivered, **space}


def says(error: str = "", backups: tuple[str, ...] = (), **runs: str) -> dict[str, Any]:
    """Return a host's answer: component and the image that it runs."""
    result = {"error": error, "backups": list(backups), "components": runs}
    return {"answered": True, "said": "", "result": result}


@pytest.fixture
def found() -> dict[str, Any]:
    """Blue serves 1.0.0; 1.1.0 brings a migration that is compatible with 1.0.0."""
    return {
        "site": "acme",
        "command": COMMAND,
        "colours": ["blue", "green"],
        "edge": {
            "installed": True,
            "active": "blue",
            "standby": None,
            "release": "1.0.0",
            "serial": 1,
            "previous_release": None,
            "previous_serial": None,
        },
        "new": manifest("1.1.0", 2, 2, 1),
        "old": manifest("1.0.0", 1, 1, 1),
        "database": {"version": 1, "lowest_compatible": 1, "bytes": 7_800_000},
        "images": {
            "edge-1": cost(0, 0),
            "app-1": cost(12_300_000, 40_000_000, 3.4),
            "app-2": cost(950, 2_000),
        },
        "hosts": {
            "edge-1": says(nginx="c-nginx"),
            "app-1": says(app="c-app-1.0.0"),
            "data-1": says(postgres="m-postgres", redis="m-redis"),
        },
        "sources": {"access": {}, "unlisted": [], "setting": ""},
        "app_hosts": ["app-1", "app-2"],
        "hours": 24,
    }


def plan(found: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = module.swap_plan(found)
    assert bool(made["problems"]) == (made["lines"] == made["problems"])
    return made


def rows(found: dict[str, Any]) -> dict[str, str]:
    made = plan(found)
    assert made["problems"] == []
    assert made["lines"][0] == "acme:"
    split = [line.split("  ", 1) for line in made["lines"][1:]]
    return {name: text.strip() for name, text in split}


def problem(found: dict[str, Any]) -> str:
    (one,) = plan(found)["problems"]
    return str(one)


# ---------------------------------------------------------------- the plan
def test_what_will_happen_is_said_step_by_step(found: dict[str, Any]) -> None:
    made = plan(found)
    assert {key: made[key] for key in ("active", "release", "target", "already")} == {
        "active": "blue",
        "release": "1.0.0",
        "target": "green",
        "already": False,
    }
    assert rows(found) == {
        "release": "1.0.0 (serial 1) to 1.1.0",
        "images": "app-1 12.3 MB, app-2 950 B",
        "disk": "app-1 40.0 MB of 30.00 GB free, app-2 2.0 kB of 30.00 GB free",
        "transfer": "about 3 s",
        "backup": "database of 7.8 MB, test-restored and compared",
        "schema": "from 1 to 2; supports releases of schema 1 or later, so 1.0.0 keeps serving",
        "new colour": "green on app-1, app-2; blue keeps serving",
        "gates": "old colour on the new schema; new colour ready; requests through the preview",
        "switch": "blue to green; requests in progress are finished",
        "workers": "green starts; blue finishes its jobs and stops",
        "rollback": "blue stays warm for 24 h: rollback.yml",
    }


def test_who_may_use_which_source_is_said(found: dict[str, Any]) -> None:
    found["edge"]["standby"] = "green"
    found["sources"]["access"] = {"database:own": "no client", "root:inbox": "billing, shop"}
    assert rows(found)["sources"] == "database:own: no client; root:inbox: billing, shop"
    assert list(rows(found))[-7:] == [
        *("sources", "standby", "new colour", "gates", "switch", "workers", "rollback")
    ]


def test_lines_are_aligned(found: dict[str, Any]) -> None:
    lines = plan(found)["lines"][1:]
    starts = {len(line) - len(line.split("  ", 1)[1].lstrip()) for line in lines}
    assert starts == {len("new colour  ")}


def test_the_colours_change_places(found: dict[str, Any]) -> None:
    found["edge"]["active"] = "green"
    assert plan(found)["target"] == "blue"
    assert rows(found)["switch"].startswith("green to blue")


def test_nothing_to_carry_and_nothing_to_migrate(found: dict[str, Any]) -> None:
    found["images"] = {"app-1": cost(0, 0)}
    found["new"]["schema"]["head"] = 1
    assert rows(found)["images"] == "all present"
    assert not {"disk", "transfer"} & set(rows(found))
    assert rows(found)["schema"] == "1, unchanged"


def test_a_disk_that_is_too_small_is_named_before_anything_is_touched(
    found: dict[str, Any],
) -> None:
    found["images"]["app-2"]["disk"] = 31_000_000_000
    assert problem(found) == (
        "app-2 has 30.00 GB free for images, the release needs 31.00 GB: free space on app-2"
    )


def test_the_backup_from_before_the_migrations_is_kept(found: dict[str, Any]) -> None:
    """It serves a second upgrade after a rollback, or a run interrupted after its migrations."""
    name = "1.0.0-to-1.1.0-20261121T214914Z"
    names = (f"{name}.json", "1.0.0-to-1.1.0-20261120T000000Z.json", "0.9.0-to-1.0.0-2.json")
    found["hosts"]["data-1"] = says(backups=names)
    assert rows(found)["backup"].startswith("database of 7.8 MB")
    found["database"]["version"] = 2
    assert rows(found)["backup"].startswith(f"{name}, made before the migrations, is kept; no new")
    found["hosts"]["data-1"] = says(backups=("0.9.0-to-1.0.0-20261120T000000Z.json",))
    assert rows(found)["backup"].startswith("database of 7.8 MB")


def test_a_schema_that_is_newer_already_stays(found: dict[str, Any]) -> None:
    """A run was interrupted after its migrations, or this is an upgrade after a rollback."""
    found["database"]["version"] = 2
    assert rows(found)["schema"] == "2, unchanged"


def test_a_standby_goes_before_the_new_colour_comes(found: dict[str, Any]) -> None:
    found["edge"] |= {"standby": "green", "previous_release": "0.9.0", "previous_serial": 0}
    shown = rows(found)
    assert shown["standby"] == "0.9.0 (green) will be replaced"
    names = list(shown)
    assert names.index("schema") < names.index("standby") < names.index("new colour")
    found["edge"]["standby"] = None
    assert "standby" not in rows(found)


def test_what_is_not_exchanged_now_is_told(found: dict[str, Any]) -> None:
    assert "not now" not in rows(found)
    found["hosts"] |= {
        "edge-1": says(nginx="m-old"),
        "data-1": says(postgres="c-old", redis="m-old"),
    }
    assert rows(found)["not now"] == (
        "the other images of edge-1: nginx; data-1: postgres, redis: in a maintenance window, run "
        f"{COMMAND}install.yml"
    )


# ---------------------------------------------------------------- the release is already active
def test_a_release_that_serves_is_only_finished(found: dict[str, Any]) -> None:
    found["edge"] |= {"active": "green", "release": "1.1.0", "serial": 2, "standby": "blue"}
    # Nothing else that is known may matter.
    found |= {"old": {}, "database": {}}
    made = plan(found)
    assert made["already"] is True
    assert (made["active"], made["target"]) == ("green", "green")
    assert made["lines"] == ["acme already serves release 1.1.0; the remaining steps follow"]


def test_the_same_name_with_another_serial_is_not_the_same(found: dict[str, Any]) -> None:
    found["edge"] |= {"release": "1.1.0", "serial": 1}
    made = plan(found)
    assert (made["already"], made["target"]) == (False, "green")


# ---------------------------------------------------------------- problems
@pytest.mark.parametrize("serial", [2, 3])
def test_an_upgrade_never_goes_back(found: dict[str, Any], serial: int) -> None:
    found["edge"] |= {"release": "1.0.1", "serial": serial}
    # One problem is enough: the rules of an upgrade do not apply to going back.
    found["new"]["upgrade"]["minimum_version"] = "9.0.0"
    assert problem(found) == (
        f"this is release 1.1.0 (serial 2), the site serves 1.0.1 (serial {serial}): an upgrade "
        f"never goes back. To return to the previous release, run {COMMAND}rollback.yml"
    )


def test_sources_that_would_close_stand_against_it(found: dict[str, Any]) -> None:
    found["sources"] |= {
        "unlisted": ["database:own", "root:inbox"],
        "setting": 'app_source_clients: {"database:own": ["a"], "root:inbox": ["a"]}',
    }
    assert problem(found) == (
        "no client could use database:own, root:inbox after the upgrade, because "
        "app_source_clients does not list it: in group_vars/all/main.yml, set this or a shorter "
        "list: "
        'app_source_clients: {"database:own": ["a"], "root:inbox": ["a"]}'
    )


def test_too_old_a_release_is_told_where_to_go_first(found: dict[str, Any]) -> None:
    found["new"]["upgrade"]["minimum_version"] = "1.0.5"
    assert "can follow 1.0.5 or later, the site serves 1.0.0 (serial 1)" in problem(found)
    assert problem(found).endswith("import and upgrade to 1.0.5 first")


def test_versions_are_numbers_and_the_minimum_itself_will_do(found: dict[str, Any]) -> None:
    found["edge"]["release"] = found["old"]["version"] = "1.10.0"
    found["new"] |= {"version": "1.11.0"}
    for minimum in ("1.9.0", "1.10.0"):
        found["new"]["upgrade"]["minimum_version"] = minimum
        assert plan(found)["problems"] == []
    found["edge"]["release"] = "1.9.0"
    assert "1.10.0 or later" in problem(found)


def test_a_pre_release_comes_before_its_release(found: dict[str, Any]) -> None:
    found["edge"]["release"] = "1.0.5-rc.1"
    found["new"]["upgrade"]["minimum_version"] = "1.0.5"
    assert problem(found).endswith("import and upgrade to 1.0.5 first")
    found["edge"]["release"] = "1.0.5-rc.10"
    found["new"]["upgrade"]["minimum_version"] = "1.0.5-rc.9"
    assert plan(found)["problems"] == []


def test_a_stop_at_a_pre_release_is_between_as_semver_orders_it(found: dict[str, Any]) -> None:
    found["edge"]["release"] = found["old"]["version"] = "1.1.0-rc.9"
    found["new"] |= {"version": "1.1.0"}
    found["new"]["upgrade"] |= {"required_stops": ["1.1.0-rc.10", "1.1.0-rc.2"]}
    found["new"]["upgrade"]["minimum_version"] = "1.0.0"
    assert problem(found) == (
        "an upgrade from 1.1.0-rc.9 to 1.1.0 has to stop at 1.1.0-rc.10: import and upgrade to "
        "1.1.0-rc.10 first"
    )


def test_stops_between_are_named_and_no_others(found: dict[str, Any]) -> None:
    found["new"] |= {"version": "1.6.0"}
    found["new"]["upgrade"]["required_stops"] = ["0.9.0", "1.0.0", "1.2.0", "1.10.0", "1.6.0"]
    assert problem(found) == (
        "an upgrade from 1.0.0 to 1.6.0 has to stop at 1.2.0: import and upgrade to 1.2.0 first"
    )
    found["new"]["upgrade"]["required_stops"] = ["1.2.0", "1.4.0"]
    assert "has to stop at 1.2.0, 1.4.0: import and upgrade to 1.2.0 first" in problem(found)
    found["edge"]["release"] = "1.4.0"
    assert plan(found)["problems"] == []


def test_the_first_stop_is_the_lowest(found: dict[str, Any]) -> None:
    found["new"] |= {"version": "1.6.0"}
    found["new"]["upgrade"]["required_stops"] = ["1.10.0", "1.4.0", "1.2.0"]
    assert problem(found).endswith("import and upgrade to 1.2.0 first")


def test_images_of_another_source_do_not_follow(found: dict[str, Any]) -> None:
    found["new"]["image_source"] = "registry"
    assert problem(found) == (
        "the images of 1.0.0 (serial 1) came from the source debian, those of 1.1.0 (serial 2) "
        "from registry: ask the vendor for a bundle built with --source debian"
    )


def test_a_database_that_has_gone_too_far(found: dict[str, Any]) -> None:
    found["database"] |= {"version": 5, "lowest_compatible": 2}
    assert plan(found)["problems"] == [], "schema 2 is the lowest that it serves"
    found["database"]["lowest_compatible"] = 3
    assert problem(found) == (
        "the database has schema 5, which supports releases of schema 3 or later; this release has "
        "schema 2: ask the vendor for a newer release"
    )


def test_migrations_that_would_break_what_serves(found: dict[str, Any]) -> None:
    found["new"]["schema"]["lowest_compatible"] = 2
    assert problem(found) == (
        "the migrations to schema 2 would break release 1.0.0 (schema 1) while it still serves: a "
        "release between is needed, whose schema is 2 or later"
    )


def test_a_database_that_says_nothing(found: dict[str, Any]) -> None:
    found["database"] = {}
    assert problem(found) == (
        "the database does not answer, so its schema is unknown: find the cause with "
        f"{COMMAND}status.yml"
    )


def test_a_release_that_is_gone_would_leave_no_way_back(found: dict[str, Any]) -> None:
    found["old"] = {}
    assert problem(found) == (
        "the active release, 1.0.0, is no longer on this jump host, so no rollback would be "
        "possible: import its bundle again"
    )


def test_everything_is_said_at_once(found: dict[str, Any]) -> None:
    found["new"] |= {"version": "1.6.0", "image_source": "registry"}
    found["new"]["upgrade"] = {"minimum_version": "1.0.5", "required_stops": ["1.2.0"]}
    found["new"]["schema"]["lowest_compatible"] = 2
    found["database"] = {}
    assert len(plan(found)["problems"]) == 5


@pytest.mark.parametrize(
    "edge",
    [
        {"installed": False},
        {"failed": True, "msg": "there is no /usr/local/sbin/airlift-swap on this host"},
    ],
)
def test_nothing_is_upgraded_that_was_never_installed(
    found: dict[str, Any], edge: dict[str, Any]
) -> None:
    found |= {"edge": edge, "old": {}, "database": {}}
    assert problem(found) == f"nothing is installed here yet: run {COMMAND}install.yml"
    made = plan(found)
    assert (made["already"], made["release"]) == (False, None)


def test_an_agent_that_fails_is_told(found: dict[str, Any]) -> None:
    found["edge"] = {"failed": True, "msg": "the journal is damaged"}
    words = "the swap agent on the edge does not answer: the journal is damaged"
    assert problem(found) == words


def test_a_host_that_does_not_answer_is_named(found: dict[str, Any]) -> None:
    """Facts that could not be collected are not checked."""
    found["hosts"]["app-1"] = {"answered": False, "said": "no answer within 60 s", "result": {}}
    found["hosts"]["data-1"] = says("the engine does not answer: refused")
    found["images"] = {"app-1": {"skipped": True}}
    assert plan(found)["problems"] == [
        "app-1 does not answer (no answer within 60 s): bring it back",
        "the container engine of data-1 does not answer (the engine does not answer: refused): "
        f"find the cause with {COMMAND}status.yml",
    ]


def test_a_step_with_nothing_to_do_is_none(found: dict[str, Any]) -> None:
    made = plan(found)
    assert (made["images"], made["backup"]) == (True, True)
    found["images"] = {"app-1": cost(0, 0)}
    found["database"]["version"] = 2
    found["hosts"]["data-1"] = says(backups=("1.0.0-to-1.1.0-20261120T000000Z.json",))
    made = plan(found)
    assert (made["images"], made["backup"]) == (False, False)
    # The migrations are still due, so that backup is not from just before them.
    found["database"]["version"] = 1
    assert plan(found)["backup"] is True
    # The release is already active: a backup now would not be from before its migrations.
    found["edge"] |= {"release": "1.1.0", "serial": 2}
    assert (made["already"], plan(found)["backup"]) == (False, False)


def test_an_image_that_no_kept_release_needs_is_found(tmp_path: Path) -> None:
    """The same names are used as by the engine's part that removes them."""
    for release in ("1.0.0", "1.1.0"):
        app = {"repository": "airlift/app", "manifest_digest": f"m{release}"}
        app["config_digest"] = f"c{release}"
        (tmp_path / release).mkdir()
        (tmp_path / release / "manifest.json").write_text(json.dumps({"components": {"app": app}}))
    images = {
        "c1.0.0": ["airlift/app:1.0.0"],
        "m1.1.0": ["127.0.0.1:5479/airlift/app@sha256:1"],
        "bad": ["airlift/app:1.0.1", "127.0.0.1:5479/airlift/app@sha256:2"],
        "pulled": ["127.0.0.1:5479/airlift/app@sha256:3"],
        "theirs": ["airlift/application:1", "nginx:1"],
        "unnamed": [],
    }
    keep = ["1.1.0", "1.0.0"]
    engine = plugin("images/library/images_engine.py")
    unneeded = module.swap_unneeded(images, str(tmp_path), keep)
    assert unneeded == ["bad", "pulled"]
    for name, tags in images.items():
        ours = engine.names_of({"RepoTags": tags}, {"airlift/app"})
        assert bool(ours) == (name not in ("theirs", "unnamed"))
    # Without a manifest nothing is removed.
    assert module.swap_unneeded(images, str(tmp_path), [*keep, "0.9.0"]) == []


# ---------------------------------------------------------------- rollback
def note(seq: int, step: str, **data: Any) -> dict[str, Any]:
    return {"seq": seq, "step": step, "event": "intent", "run": f"r{seq}", "data": data}


@pytest.fixture
def back() -> dict[str, Any]:
    """Green serves 1.1.0; blue is standby with 1.0.0 and ready."""
    return {
        "site": "acme",
        "command": COMMAND,
        "colours": ["blue", "green"],
        "edge": {
            "installed": True,
            "active": "green",
            "standby": "blue",
            "release": "1.1.0",
            "serial": 2,
            "previous_release": "1.0.0",
            "previous_serial": 1,
            "unfinished": [],
        },
        "old": manifest("1.0.0", 1, 1, 1),
        "database": {"version": 2, "lowest_compatible": 1, "bytes": 1},
        "standbys": {"app-1": able(), "app-2": able()},
    }


def able(problem: str = "") -> dict[str, Any]:
    """Return a host's report about its standby."""
    return {"answered": True, "result": {"problem": problem}}


SILENT = {"answered": False, "said": "no answer within 8 s", "result": {}}


def way_back(found: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = module.swap_way_back(found)
    assert set(made) == {
        *("active", "release", "target", "to", "already", "abandon", "warm", "silent"),
        *("problems", "lines"),
    }
    return made


def no_way(found: dict[str, Any]) -> str:
    made = way_back(found)
    (one,) = made["problems"]
    assert not made["abandon"]
    assert not made["already"]
    return str(one)


def is_normal(made: dict[str, Any]) -> bool:
    return (
        (made["active"], made["target"], made["release"]) == ("green", "blue", "1.1.0")
        and made["to"] == {"release": "1.0.0", "serial": 1}
        and not made["already"]
        and not made["abandon"]
        and made["problems"] == []
    )


def test_back_to_what_is_warm(back: dict[str, Any]) -> None:
    made = way_back(back)
    assert is_normal(made)
    assert made["warm"] is True
    assert made["lines"] == ["acme: roll back from 1.1.0 (green) to 1.0.0 (blue), which is warm"]


def test_a_standby_that_could_not_serve_is_made_again(back: dict[str, Any]) -> None:
    """The plan says why the rollback takes longer."""
    back["standbys"]["app-2"] = able("there is no container airlift-app-blue")
    made = way_back(back)
    assert is_normal(made)
    assert made["warm"] is False
    assert made["lines"] == [
        "acme: roll back from 1.1.0 (green) to 1.0.0 (blue), from its pinned images",
        "app-2: there is no container airlift-app-blue",
    ]


def test_a_retired_standby_that_still_answers_is_none(back: dict[str, Any]) -> None:
    back["edge"]["standby"] = None
    made = way_back(back)
    assert is_normal(made)
    assert made["warm"] is False
    assert made["lines"] == [
        "acme: roll back from 1.1.0 (green) to 1.0.0 (blue), from its pinned images"
    ]


def test_one_app_host_is_enough_to_go_back_with(back: dict[str, Any]) -> None:
    back["standbys"]["app-1"] = SILENT
    made = way_back(back)
    assert is_normal(made)
    assert (made["warm"], made["silent"]) == (True, ["app-1"])
    assert made["lines"][1:] == ["app-1 does not answer and is not changed"]


def test_without_any_app_host_there_is_no_way_back(back: dict[str, Any]) -> None:
    back["standbys"] = {"app-1": SILENT, "app-2": SILENT}
    assert no_way(back) == (
        "no app host answers (app-1, app-2): bring one back, then run the same command again"
    )


def test_before_the_first_release_there_is_none(back: dict[str, Any]) -> None:
    back["edge"] |= {"previous_release": None, "previous_serial": None, "standby": None}
    assert no_way(back | {"old": {}}) == (
        "1.1.0 is the first release on this site: there is no previous release"
    )


@pytest.mark.parametrize("old", [{}, manifest("1.0.0", 7, 1, 1)])
def test_a_release_that_is_not_here_is_no_way(back: dict[str, Any], old: dict[str, Any]) -> None:
    """This includes one of the same name that was built again, with other images."""
    assert no_way(back | {"old": old}) == (
        "release 1.0.0 (serial 1) is no longer on this jump host: import its bundle again"
    )


def test_a_database_that_went_on_closes_the_way(back: dict[str, Any]) -> None:
    back["database"]["lowest_compatible"] = 2
    assert no_way(back) == (
        "release 1.0.0 has schema 1; the database has schema 2, which supports releases of schema "
        "2 or later. A rollback is impossible: upgrade to a release that fixes the fault"
    )


def test_a_database_that_is_down_is_not_trusted(back: dict[str, Any]) -> None:
    assert no_way(back | {"database": {}}).startswith("the database does not answer")


def test_no_way_back_from_nothing(back: dict[str, Any]) -> None:
    back |= {"edge": {"installed": False, "unfinished": []}, "old": {}, "database": {}}
    assert no_way(back) == f"nothing is installed here yet: run {COMMAND}install.yml"


@pytest.mark.parametrize(
    ("edge", "why"),
    [
        ({}, "no reason given"),
        (
            {"failed": True, "changed": False, "msg": "the journal is damaged"},
            "the journal is damaged",
        ),
    ],
)
def test_an_edge_that_says_nothing_is_not_taken_for_an_empty_one(
    back: dict[str, Any], edge: dict[str, Any], why: str
) -> None:
    assert no_way(back | {"edge": edge}) == f"the swap agent on the edge does not answer: {why}"


# ---------------------------------------------------------------- after an interrupted run
def test_an_upgrade_that_had_not_switched_is_given_up(back: dict[str, Any]) -> None:
    begun = {"release": "1.2.0", "serial": 3}
    back["edge"]["unfinished"] = [note(4, "upgrade", **begun), note(7, "schema")]
    # No condition of a rollback applies: the active release keeps serving.
    made = way_back(back | {"old": {}, "database": {}})
    assert made["abandon"] is True
    assert (made["target"], made["to"], made["warm"]) == ("blue", begun, False)
    assert made["problems"] == []
    assert made["lines"] == [
        "the upgrade to 1.2.0 had not switched: 1.1.0 keeps serving, and the incomplete upgrade is "
        "cleaned up"
    ]


def test_the_first_upgrade_can_be_given_up_too(back: dict[str, Any]) -> None:
    back["edge"] |= {"active": "blue", "release": "1.0.0", "serial": 1, "standby": None}
    back["edge"] |= {"previous_release": None, "previous_serial": None}
    back["edge"]["unfinished"] = [note(1, "upgrade", release="1.1.0", serial=2)]
    made = way_back(back | {"old": {}})
    assert (made["abandon"], made["target"]) == (True, "green")


def test_a_rollback_that_had_switched_is_finished(back: dict[str, Any]) -> None:
    back["edge"] |= {"active": "blue", "standby": "green", "release": "1.0.0", "serial": 1}
    back["edge"] |= {"previous_release": "1.1.0", "previous_serial": 2}
    begun = {"release": "1.0.0", "serial": 1}
    back["edge"]["unfinished"] = [note(4, "rollback", **begun), note(7, "workers")]
    made = way_back(back | {"old": {}, "database": {}})
    assert (made["already"], made["abandon"]) == (True, False)
    assert (made["active"], made["target"], made["to"]) == ("blue", "blue", begun)
    assert made["lines"] == ["1.0.0 already serves again; the remaining steps follow"]


def test_a_rollback_that_had_not_switched_is_begun_again(back: dict[str, Any]) -> None:
    back["edge"]["unfinished"] = [note(4, "rollback", release="1.0.0", serial=1), note(5, "colour")]
    assert is_normal(way_back(back))


def test_after_an_upgrade_that_had_switched_the_way_back_is_the_usual_one(
    back: dict[str, Any],
) -> None:
    back["edge"]["unfinished"] = [note(1, "upgrade", release="1.1.0", serial=2), note(9, "workers")]
    assert is_normal(way_back(back))


def test_giving_up_that_was_cut_off_goes_on(back: dict[str, Any]) -> None:
    """Cancelling is a rollback in the journal; it names the release that is removed."""
    begun = note(4, "upgrade", release="1.2.0", serial=3)
    back["edge"]["unfinished"] = [begun, note(8, "rollback", release="1.2.0", serial=3)]
    assert way_back(back)["abandon"] is True


@pytest.mark.parametrize("turned", [False, True])
def test_a_rollback_of_an_upgrade_that_was_cut_off_after_it_switched(
    back: dict[str, Any], *, turned: bool
) -> None:
    """Both are open until a run succeeds. Cancelling would deploy 1.1.0 again."""
    back["edge"] |= {"active": "blue", "standby": "green", "release": "1.0.0", "serial": 1}
    back["edge"] |= {"previous_release": "1.1.0", "previous_serial": 2}
    left = [
        note(1, "upgrade", release="1.1.0", serial=2),
        note(9, "rollback", release="1.0.0", serial=1),
        note(12, "workers"),
    ]
    back["edge"]["unfinished"] = left[::-1] if turned else left
    made = way_back(back)
    assert (made["already"], made["abandon"], made["target"]) == (True, False, "blue")
    assert made["to"] == {"release": "1.0.0", "serial": 1}


@pytest.mark.parametrize("turned", [False, True])
def test_an_upgrade_that_was_begun_again_after_a_rollback(
    back: dict[str, Any], *, turned: bool
) -> None:
    """The rollback had switched to 1.0.0; the upgrade was interrupted last."""
    back["edge"] |= {"active": "blue", "standby": "green", "release": "1.0.0", "serial": 1}
    back["edge"] |= {"previous_release": "1.1.0", "previous_serial": 2}
    begun = {"release": "1.1.0", "serial": 2}
    left = [note(10, "upgrade", **begun), note(9, "rollback", release="1.0.0", serial=1)]
    back["edge"]["unfinished"] = left[::-1] if turned else left
    made = way_back(back)
    assert (made["abandon"], made["already"], made["to"]) == (True, False, begun)
