"""Print the short output of a playbook: a line per step and per change, and a final sentence.

With `-v` and above it is Ansible's own output, which has everything.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible import constants as C  # noqa: N812 - Ansible's own name for it
from ansible import context
from ansible.executor.task_result import CallbackTaskResult as Result
from ansible.playbook.block import Block
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.template import Templar, trust_as_template
from ansible.utils.color import stringc
from ansible.utils.display import Display
from ansible.utils.fqcn import add_internal_fqcns

DOCUMENTATION = """
name: airlift
type: stdout
short_description: a line per step, a line per change, and the sentence last
description:
  - Prints one line per step with its hosts and seconds, one line per change, failures as plain
    text, and what a playbook reports. A text whose last line begins with `Next:` comes last.
  - With C(-v) and above it is the callback C(default).
  - A module reports what it changed in C(changes), a list of texts, in C(changed_files) or in
    C(msg); or in C(containers), a list of C(name), C(changed) and C(why).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

#: Actions that only decide or report on the jump host: a step with nothing else gets no line.
_QUIET = frozenset(
    add_internal_fqcns(
        [
            *("add_host", "assert", "debug", "fail", "group_by"),
            *("include_vars", "set_fact", "validate_argument_spec"),
        ]
    )
)
#: Result keys that list changes; the first one that is not empty counts.
_LISTS = ("changes", "changed_files", "removed", "missing")
#: Result keys that name the changed object, if the result lists no changes.
_NAMES = ("msg", "path", "dest", "filename")
#: Column widths of a step's line, 80 in all: name, hosts, seconds.
_NAME, _HOSTS = 40, 22


def title_of(task: Task, play: str, titles: Mapping[str, str]) -> str:
    """Return the step of a task: the outermost role or file of tasks that its play includes.

    A block is not a step, it only shares a rescue; nor is an include with the name of its play.
    `titles` has the names of includes that were templated.
    """
    chain: list[Any] = [task]
    while chain[-1]._parent is not None:
        chain.append(chain[-1]._parent)
    outside = True
    for one in reversed(chain):
        if isinstance(one, TaskInclude):
            outside = False
            if (name := titles.get(one._uuid) or str(one.name or "")) not in ("", play):
                return name
        elif outside and isinstance(one, Block) and one._role is not None:
            return play
    return play


def changes_of(said: Mapping[str, Any]) -> list[str]:
    """Return the changes that a result reports, one line each; one empty line if it lists none."""
    listed = [one for one in said.get("containers") or () if isinstance(one, dict)]
    if several := [one for one in listed if one.get("changed") and one.get("why")]:
        return [f"container {one.get('name')}: {', '.join(one['why'])}" for one in several]
    for key in _LISTS:
        if isinstance(found := said.get(key), list) and found:
            return [", ".join(str(one) for one in found)]
    return [next((" ".join(str(said[key]).split()) for key in _NAMES if said.get(key)), "")]


def reason_of(said: Mapping[str, Any], name: str) -> str:
    """Return the message of a failure in full."""
    if "censored" in said:
        return f"{name}: its message is hidden (site_no_log)"
    message = str(said.get("msg") or "").strip()
    # The output of a program says more than "non-zero return code".
    words = [str(said.get(key) or "").strip() for key in ("stderr", "module_stderr")]
    words = [*words, *(str(said.get(key) or "").strip() for key in ("stdout", "module_stdout"))]
    printed = next((text for text in words if text and text not in message), "")
    if printed or not message:
        message = f"{name}: {message}\n{printed}".strip(" :\n")
    return message


@dataclass
class _Step:
    """A step in progress."""

    title: str
    begun: float = field(default_factory=time.monotonic)
    #: Hosts on which something was done or checked.
    hosts: set[str] = field(default_factory=set)
    #: The step's line was printed before a failure; this is what follows it.
    rest: bool = False


class Brief(Default):  # type: ignore[misc]
    """Prints one line per step, changes, failures and the summary."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = time.monotonic()
        self._step: _Step | None = None
        self._titles: dict[str, str] = {}
        self._changes = 0
        self._diff = ""
        # Texts of the current task, because all hosts may report the same.
        self._told: set[str] = set()
        self._sentence = ""
        self._gap = False
        self._moving = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        if self._moving:
            self._clear_before_each_line()

    # ------------------------------------------------------------------ lines
    def _clear_before_each_line(self) -> None:
        """Make any printed line, from any source, overwrite the name of the step in progress."""
        show = self._display.display

        def display(*arguments: Any, **options: Any) -> None:
            sys.stdout.write("\033[K")
            sys.stdout.flush()  # the line may be one of standard error
            show(*arguments, **options)
            self._name_step()

        self._display.display = display

    def _name_step(self) -> None:
        """On a terminal, show the step in progress until the next line."""
        if self._moving and self._step:
            width = shutil.get_terminal_size().columns - 3
            sys.stdout.write(f"\033[K{self._step.title[:width]} …\r")
            sys.stdout.flush()

    def _line(self, text: str, word: str = "", colour: str | None = None) -> None:
        if self._gap:
            self._gap = False
            self._display.display("")
        if word and colour:
            self._display.display(f"{stringc(word, colour)} {text}", screen_only=True)
            self._display.display(f"{word} {text}", log_only=True)
        else:
            self._display.display(f"{word} {text}" if word else text)

    def _text(self, text: str) -> None:
        """Print a text; put empty lines around several lines."""
        many = "\n" in text
        self._gap = self._gap or many
        self._line(text)
        self._gap = many

    def _release_sentence(self) -> None:
        if self._sentence:
            self._text(self._sentence)
            self._sentence = ""

    # ------------------------------------------------------------------ steps
    def _begin(self, task: Task) -> None:
        self._told.clear()
        if isinstance(task, TaskInclude):  # its name is templated only now
            self._titles[task._uuid] = str(task.name or "")
        title = title_of(task, self._play.get_name().strip(), self._titles)
        if self._step is None or self._step.title != title:
            self._end()
            self._step = _Step(title)
            self._name_step()

    def _end(self, *, failed: bool = False) -> None:
        """Print the line of a step that did something, and end it."""
        step, self._step = self._step, None
        if step is None or not step.hosts:
            return
        names = ", ".join(sorted(step.hosts))
        hosts = names if len(names) <= _HOSTS else f"{len(step.hosts)} hosts"
        seconds = time.monotonic() - step.begun
        word = "  failed" if failed else ""
        self._line(f"{step.title:<{_NAME}} {hosts:<{_HOSTS}}{seconds:>7.1f} s{word}")

    def _concerns(self, result: Result) -> None:
        if self._step and result.task.action not in _QUIET:
            self._step.hosts.add(result.host.get_name())

    def _fail(self, result: Result, word: str, text: str) -> None:
        """Print a failure as the last line of its step."""
        self._release_sentence()
        if (step := self._step) and (step.hosts or not step.rest):
            step.hosts.add(result.host.get_name())
            self._end(failed=True)
            self._step = _Step(step.title, rest=True)
        self._line(text, f"{word}: [{self.host_label(result)}]", C.COLOR_ERROR)

    # ------------------------------------------------------------------ playbook
    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Start the clock; in check mode, say that no host is changed."""
        # Every task is a forked process for each host. What this process has loaded, the forked
        # ones need not: one template loads the filters, the tests and the parser.
        Templar().template(trust_as_template("{{ [1] | difference([2]) is subset([1]) }}"))
        # A garbage collection there would copy all the memory of this process, and a run is too
        # short to need one: with them it took a sixth longer.
        gc.disable()
        gc.freeze()
        self._begun = time.monotonic()
        if context.CLIARGS["check"]:
            self._line("Check mode: no host is changed.")

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """Begin a play, or the next batch of its hosts."""
        self._end()
        self._play = play

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        """Begin a task, and its step."""
        self._begin(task)

    def v2_playbook_on_handler_task_start(self, task: Task) -> None:
        """Begin a handler: it belongs to the step that it ends."""
        self._told.clear()
        if self._step is None:
            self._step = _Step(self._play.get_name().strip())

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Say nothing: the step has the name."""

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Say nothing: the play does not concern these hosts."""

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        """Say nothing: the failures are printed."""

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print the sentence and the summary."""
        self._end()
        self._release_sentence()
        failed = [host for host, times in stats.failures.items() if times]
        word = "would change" if context.CLIARGS["check"] else "changed"
        parts = [f"{self._changes} {word}", _count("failed", failed)]
        if stats.dark:
            parts.append(_count("unreachable", stats.dark))
        parts.append(f"{time.monotonic() - self._begun:.1f} s")
        self._gap = True
        self._line(", ".join(parts))

    # ------------------------------------------------------------------ results
    def v2_runner_on_ok(self, result: Result) -> None:
        """Print what was changed, or the text that a task reports."""
        if not isinstance(result.task, TaskInclude):
            self._handle_warnings(result.result)
            self._concerns(result)
            if not (result.task.loop and "results" in result.result):
                self._ok(result)
            self._show_diff()

    def v2_runner_item_on_ok(self, result: Result) -> None:
        """Print what was changed for an item."""
        if not isinstance(result.task, TaskInclude):
            self._handle_warnings(result.result)
            self._ok(result, str(self._get_item_label(result.result)))

    def _ok(self, result: Result, item: str = "") -> None:
        said = result.result
        if result.task.action in C._ACTION_DEBUG:
            self._report(said, result.task.action)
        elif said.get("changed"):
            check = bool(result.task_fields.get("check_mode"))
            word = f"{'would change' if check else 'changed'}: [{self.host_label(result)}]"
            for change in changes_of(said):
                self._changes += 1
                # Of containers, each is named; the task only lists them.
                named = [change] if said.get("containers") else self._words(result, item, change)
                text = ": ".join(named)
                self._line(text, word, C.COLOR_CHANGED)

    def _words(self, result: Result, *more: str) -> Iterator[str]:
        """Yield role, task and more of a change."""
        if role := result.task._role:
            yield role.get_name()
        yield result.task_name
        yield from filter(None, more)

    def _report(self, said: Mapping[str, Any], action: str) -> None:
        """Print the text of a debug task; hold back the one that says what comes next."""
        if "censored" in said:
            return
        self._clean_results(said, action)
        found = said.get("msg")
        if isinstance(found, list):
            text = "\n".join(str(one) for one in found)
        elif isinstance(found, str):
            text = found.strip("\n")
        else:
            text = textwrap.dedent(self._dump_results(said)).strip("\n")
        if text in self._told:
            return
        self._told.add(text)
        if text.rpartition("\n")[2].startswith("Next:"):
            self._release_sentence()
            self._sentence = text
        else:
            self._text(text)

    def v2_on_file_diff(self, result: Result) -> None:
        """Keep the difference until the line of its change is printed."""
        said = result.result
        ones = said["results"] if result.task.loop and "results" in said else [said]
        changed = [one["diff"] for one in ones if one.get("changed") and one.get("diff")]
        self._diff = "".join(self._get_diff(one) or "" for one in changed)

    def _show_diff(self) -> None:
        if self._diff.strip():
            self._line(self._diff.strip("\n"))
        self._diff = ""

    def v2_runner_on_failed(self, result: Result, ignore_errors: bool = False) -> None:
        """Print why a task failed."""
        self._handle_warnings(result.result)
        self._show_diff()
        if not (result.task.loop and "results" in result.result):
            self._failed(result, ignore_errors)

    def v2_runner_item_on_failed(self, result: Result) -> None:
        """Print why an item failed."""
        self._handle_warnings(result.result)
        self._failed(result, bool(result.task.ignore_errors))

    def _failed(self, result: Result, ignored: bool) -> None:
        why = reason_of(result.result, ": ".join(self._words(result)))
        if ignored:
            self._line(why, f"ignored: [{self.host_label(result)}]", C.COLOR_WARN)
        else:
            self._fail(result, "failed", why)

    def v2_runner_on_unreachable(self, result: Result) -> None:
        """Print which host cannot be reached, and why."""
        self._handle_warnings(result.result)
        why = str(result.result.get("msg") or "no reason given").strip()
        self._line(why, f"unreachable: [{self.host_label(result)}]", C.COLOR_UNREACHABLE)

    def v2_runner_on_skipped(self, result: Result) -> None:
        """Print warnings only."""
        self._handle_warnings(result.result)

    v2_runner_item_on_skipped = v2_runner_on_skipped

    def v2_runner_on_start(self, host: Any, task: Task) -> None:
        """Say nothing."""

    def v2_runner_retry(self, result: Result) -> None:
        """Say nothing: a task that waits says in the end what it waited for."""


def _count(word: str, hosts: Any) -> str:
    return f"{len(hosts)} {word} ({', '.join(sorted(hosts))})" if hosts else f"0 {word}"


class CallbackModule(Default if Display().verbosity else Brief):  # type: ignore[misc]
    """Ansible's own output with `-v`, otherwise the brief one."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "airlift"
