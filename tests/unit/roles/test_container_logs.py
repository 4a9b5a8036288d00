"""One reader finds the error in a log, and several places show it."""

import json
import subprocess
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

last_error = plugin("site/module_utils/container_logs.py").last_error
app_reason = plugin("app/filter_plugins/app.py").app_reason
WHY = {"level": "error", "event": "migration failed", "reason": "the schema is at 1"}
INFO = {"level": "info", "event": "started"}
TORN = '{"level": "error", "reason": "no'
DEEP = '{"level": ' + "[" * 100_000


def text_of(lines: list[Any]) -> str:
    return "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([INFO, WHY, INFO, "Traceback", "", "  "], WHY["reason"]),
        ([WHY, {"level": "critical", "reason": "worse"}], "worse"),
        ([WHY, {"level": "fatal", "reason": "the end"}], "the end"),
        ([{"level": "error", "event": "only this"}], "only this"),
        ([{"level": "error", "exception": "it was raised", "event": "x"}], "it was raised"),
        ([{"level": "error"}], '{"level": "error"}'),
        ([{"level": "warning", "reason": "no"}, "[]", "the end "], "the end "),
        ([INFO], json.dumps(INFO)),
        ([WHY, {"level": ["error"]}, {"level": {}}], WHY["reason"]),
        ([WHY, DEEP], WHY["reason"]),
        (["", "   "], ""),
        ([], ""),
    ],
)
@pytest.mark.parametrize("plain", [True, False])
def test_the_last_error_of_json_lines_is_told(lines: list[Any], words: str, plain: bool) -> None:
    assert last_error(text_of(lines), plain=plain) == words


@pytest.mark.parametrize(
    "line",
    [
        "nginx: [emerg] host not found in upstream",
        "FATAL:  password authentication failed",
        "Can't open the append-only file",
        "listen tcp :9090: bind: permission denied",
        "panic: runtime",
        '"error"',
        TORN,
    ],
)
def test_a_plain_line_that_tells_an_error_counts_but_in_the_services_own_log(line: str) -> None:
    text = text_of([WHY, line, "ready for connections"])
    assert last_error(text) == line
    assert last_error(text, plain=False) == WHY["reason"]


@pytest.mark.parametrize(
    ("quoted", "words"),
    [
        (
            "*** FATAL CONFIG FILE ERROR (Redis 8.0.2) ***\n"
            "Reading the configuration file, at line 1\n"
            ">>> 'maxmemory abc'\nargument must be a memory value\n",
            "wrong setting 'maxmemory abc': argument must be a memory value",
        ),
        (
            "9:M 30 Nov 2026 21:45:46.194 # Unresolved Configuration(s) Detected:\n"
            "9:M 30 Nov 2026 21:45:46.194 # >>> 'no-such 1'\n"
            "9:M 30 Nov 2026 21:45:46.194 # Module Configuration detected: aborting\n",
            "wrong setting 'no-such 1': Module Configuration detected: aborting",
        ),
    ],
)
def test_a_setting_that_redis_refuses_is_named(quoted: str, words: str) -> None:
    warning = "9:C 30 Nov 2026 21:45:46.192 # WARNING a background save may fail under low memory\n"
    assert last_error(f"{warning}{quoted}") == words
    assert last_error(f"{warning}{quoted}{warning}{quoted}") == words


def test_a_line_that_tells_no_error_is_told_when_there_is_none() -> None:
    assert last_error("starting\nready for connections\n") == "ready for connections"


# ---------------------------------------------------------------- places that show it
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([INFO, WHY, INFO, "Traceback", "", "  "], WHY["reason"]),
        ([WHY, {"level": "critical", "reason": "worse"}], "worse"),
        ([{"level": "error", "event": "only this"}], "only this"),
        ([{"level": "error"}], '{"level": "error"}'),
        ([{"level": "warning", "reason": "no"}, "[]", '"error"', "the end "], "the end "),
        ([INFO], json.dumps(INFO)),
        (["", "   "], "it logged nothing"),
        ([], "it logged nothing"),
    ],
)
def test_the_reason_of_a_command(lines: list[Any], words: str) -> None:
    assert app_reason(text_of(lines)) == words


def test_a_reason_of_no_text() -> None:
    """A template may pass a value that is no str."""
    assert app_reason(None) == "None"
    assert app_reason(404) == "404"


def test_an_exception_that_nobody_caught_is_a_reason() -> None:
    cause = {"type": "OSError", "message": "no space left on device"}
    error = {"level": "critical", "event": "uncaught exception", "exception": cause}
    assert "no space left on device" in app_reason(json.dumps(error))


@pytest.mark.parametrize("plain", [True, False])
def test_a_gate_tells_the_last_words_of_a_container(
    monkeypatch: pytest.MonkeyPatch, *, plain: bool
) -> None:
    module, log = plugin("site/module_utils/engine_client.py"), [text_of([INFO, WHY]), "", ""]

    def said(*words: str, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 0, log[0], log[1])

    monkeypatch.setattr(module, "docker", said)
    assert module.last_words("x", plain=plain) == WHY["reason"]
    log[:2] = "", "exec format error\n"
    assert module.last_words("x", plain=plain).strip() == "exec format error"
    log[:2] = "", ""
    assert module.last_words("x", plain=plain) == "it logged nothing"


def test_status_tells_it_in_a_line_that_fits_its_report() -> None:
    reason_in = plugin("status/module_utils/status_engine.py").reason_in
    assert reason_in(text_of([WHY, INFO])) == WHY["reason"]
    assert reason_in("FATAL:   no\troom\nready\n") == "FATAL: no room"
    assert reason_in(json.dumps({"level": "fatal", "reason": "x" * 300})).endswith(" …")
    assert reason_in("") == ""
