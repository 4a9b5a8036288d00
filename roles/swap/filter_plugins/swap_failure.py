"""Filters that return why a run failed, as text that may be recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: Maximum characters of a reason in the journal; the terminal showed the full text.
SENTENCE = 300


def swap_reasons(hosts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the messages of the failed tasks, each once; of a hidden task only its name.

    `hosts` are hosts' variables. They hold the message of a task with `no_log`, too.
    """
    failed = [host for host in hosts if "ansible_failed_result" in host]
    return list(dict.fromkeys(_reason(host) for host in failed))


def _reason(host: Mapping[str, Any]) -> str:
    result, task = host["ansible_failed_result"], host.get("ansible_failed_task") or {}
    if result.get("_ansible_no_log") or task.get("no_log") or "censored" in result:
        return f"{task.get('name') or 'a task'} (its message is hidden; see site_no_log)"
    # A loop reports only that something failed; one of its results has the reason.
    items = [one for one in result.get("results") or () if one.get("failed")]
    words = str((items or [result])[0].get("msg") or "").strip()
    return words or f"{task.get('name') or 'a task'} failed without a message"


def swap_sentence(text: str) -> str:
    """Return a text as one line that fits a journal."""
    line = " ".join(text.split())
    if len(line) > SENTENCE:
        line = f"{line[: SENTENCE - 2].rpartition(' ')[0] or line[: SENTENCE - 2]} …"
    return line.rstrip(".:")


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {"swap_reasons": swap_reasons, "swap_sentence": swap_sentence}
