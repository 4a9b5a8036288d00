"""Which replicas get requests: counting, choosing, and the mark in the upstream file."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest
from swap_agent import replicas
from swap_agent.replicas import Replica, blocked, downs, judge, marked, servers, urgent

from tests.unit.roles.conftest import ROLES, load

BACKENDS = {"app-1": "10.0.2.1", "app-2": "10.0.2.2"}


def upstream(primary: str = "blue", *, backup: bool = False, **backends: str) -> str:
    """Return the role's own file for one way to distribute requests."""
    environment = jinja2.Environment(  # noqa: S701 - no HTML
        trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((ROLES / "edge/templates/upstream.conf.j2").read_text())
    site = load("site", "defaults/main.yml")
    return template.render(
        edge_upstream={"primary": primary, "backup": backup},
        edge_backends={name.replace("_", "-"): one for name, one in backends.items()} or BACKENDS,
        edge_upstream_keepalive=32,
        edge_server_options="",
        site_colours=load("site", "vars/main.yml")["site_colours"],
        site_ports=site["site_ports"],
        site_timings=site["site_timings"],
    )


def group(*outs: bool) -> list[Replica]:
    found = [
        Replica(f"app-{number}", f"10.0.2.{number}:8001", False, out, "before")
        for number, out in enumerate(outs, 1)
    ]
    for one in found:
        one.answered = 0
        if not one.out:
            one.good(1, "t")
    return found


def see(one: Replica, said: str) -> None:
    """Let a replica answer: `+` is 200, `-` is a failure."""
    for letter in said:
        if letter == "+":
            one.good(one.answered + 1, "t")
        else:
            one.bad("why")


@pytest.mark.parametrize(
    ("before", "said", "out"),
    [
        (False, "--", False),
        (False, "---", True),
        (False, "--+--", False),
        (False, "-+--+---", True),
        (True, "++", True),
        (True, "+++", False),
        (True, "++-++", True),
        (True, "++-+++", False),
        (True, "---", True),
    ],
)
def test_three_in_a_row(before: bool, said: str, out: bool) -> None:
    one, other = group(before, False)
    see(one, said)
    changed = judge([one, other], "now")
    assert one.out is out
    assert changed == ([one] if out is not before else [])
    assert one.since == ("now" if changed else "before")


def test_the_last_one_stays() -> None:
    one, other = group(True, False)
    see(other, "---")
    assert judge([one, other], "now") == []
    see(one, "+++")
    assert judge([one, other], "now") == [one, other], "another replica is back"
    assert (one.out, other.out) == (False, True)


def test_if_those_in_service_fail_the_first_answer_brings_one_back() -> None:
    one, other = group(True, False)
    see(one, "+")
    assert judge([one, other], "now") == []
    see(other, "-")
    assert judge([one, other], "now") == [one]
    assert not urgent([one, other], ())
    # It is still marked and no other answers, so the change cannot wait.
    assert urgent([one, other], {one.address})
    see(other, "+")
    assert not urgent([one, other], {one.address})


def test_if_all_fail_all_stay_even_if_one_is_earlier() -> None:
    both = group(False, False)
    for one in both * 2:
        see(one, "-")
    see(both[0], "-")
    assert judge(both, "now") == []
    see(both[1], "--")
    assert judge(both, "now") == []


def test_of_three_two_may_go() -> None:
    three = group(False, False, False)
    see(three[0], "---")
    see(three[2], "---")
    assert judge(three, "now") == [three[0], three[2]]
    see(three[1], "---")
    assert judge(three, "now") == []


def test_a_host_that_is_left_alone_is_in() -> None:
    (one,) = group(True)
    assert judge([one], "now") == [one]
    assert not one.out


def test_nobody_goes_before_another_was_seen_well() -> None:
    one, other = group(False, False)
    other.successes = 0
    see(one, "---")
    assert judge([one, other], "now") == []


def test_a_late_answer_is_a_success_and_its_silence_no_failure() -> None:
    one, other = group(False, False)
    one.answered = 0.0
    # The replica is asked each second and answers four seconds later, so at first it is silent…
    for second in range(1, 3):
        one.silent(sent=second, why="no answer")
    assert one.failures == 2
    # …and from then on each probe gets the answer to an earlier one.
    for second in range(4, 30):
        one.good(second + 0.9, "t")
        one.silent(sent=second, why="no answer")
        assert judge([one, other], "now") == []
    assert one.successes > replicas.SUCCESSES
    for second in range(31, 34):
        one.silent(sent=second, why="no answer")
    assert judge([one, other], "now") == [one]


def test_answers_that_were_held_up_together_are_one_success() -> None:
    one, other = group(True, False)
    for _ in range(6):
        one.good(100.0, "t")
    assert one.successes == 1
    assert judge([one, other], "now") == []
    see(one, "++")
    assert judge([one, other], "now") == [one]


def test_taking_out_is_counted() -> None:
    one, other = group(False, False)
    for _ in range(2):
        see(one, "---")
        judge([one, other], "now")
        see(one, "+++")
        judge([one, other], "now")
    assert one.taken_out == 2


# ---------------------------------------------------------------- the file
def test_the_roles_file_is_understood() -> None:
    text = upstream(backup=True)
    assert [(one.name, one.address, one.backup, one.down) for one in servers(text)] == [
        ("app-1", "10.0.2.1:8001", False, False),
        ("app-2", "10.0.2.2:8001", False, False),
        ("app-1", "10.0.2.1:8002", True, False),
        ("app-2", "10.0.2.2:8002", True, False),
    ]


def test_the_mark_comes_and_goes_and_changes_nothing_else() -> None:
    text = upstream(backup=True)
    once = marked(text, {"10.0.2.2:8001", "10.0.2.1:8002"})
    assert downs(once) == {"10.0.2.2:8001", "10.0.2.1:8002"}
    assert marked(once, {"10.0.2.2:8001", "10.0.2.1:8002"}) == once
    assert marked(once, ()) == text
    assert once.replace(" down;", ";") == text
    # The preview shows the other colour unchanged.
    assert once.split("upstream preview")[1] == text.split("upstream preview")[1]


def test_a_group_is_never_marked_as_a_whole() -> None:
    text = upstream(backup=True)
    everything = {one.address for one in servers(text)}
    assert marked(text, everything) == text
    assert downs(marked(text, everything - {"10.0.2.1:8001"})) == {"10.0.2.2:8001"}
    assert marked(upstream(app_2="10.0.2.2"), {"10.0.2.2:8001"}).count("down") == 1  # the comment


def test_marks_of_servers_that_are_gone_are_of_nobody() -> None:
    assert downs(marked(upstream("green"), {"10.0.2.2:8001"})) == set()


def test_connections_are_refused_only_while_another_takes_them() -> None:
    text = upstream()
    one, other = (server.address for server in servers(text))
    assert blocked(text, {one}) == {one}
    assert blocked(text, {one, other}) == set()
    down = marked(text, {one})
    assert blocked(down, {one}) == {one}
    # The first one answers again but is still marked, so the second must wait.
    assert blocked(down, {other}) == set()
    assert blocked(down, {one, other}) == {one}


def test_the_marks_of_nginx_itself_survive_a_hiccup() -> None:
    def options(text: str) -> dict[str, Any]:
        line = next(line for line in text.splitlines() if "server 10.0.2.1:8001" in line)
        return dict(
            word.split("=") for word in line.rstrip().replace(";", "").split() if "=" in word
        )

    found = options(upstream())
    assert int(found["max_fails"]) > 8, "one dying worker process breaks as many requests"
    assert int(found["fail_timeout"].rstrip("s")) < 5
    assert replicas.FAILURES == replicas.SUCCESSES == 3
