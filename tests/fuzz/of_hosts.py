"""Fuzz rows for what hosts read from services and engines: answers, logs, configuration."""

from __future__ import annotations

import email.message
import io
import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.fuzz.mutate import Bytes, Json, Lines
from tests.fuzz.of_edge import READY
from tests.fuzz.parser import Case, Kit, fuzzed
from tests.unit.roles.conftest import plugin


class _Answer(io.BytesIO):
    """An answer as urllib returns it."""

    status = 200


def _answering(kit: Kit) -> list[Any]:
    """Return a list of status and body that urllib then answers every request with."""
    current: list[Any] = [200, b""]

    def answer(_: Any, request: Any, *__: Any, **___: Any) -> _Answer:
        if current[0] != 200:
            body, head = io.BytesIO(current[1]), email.message.Message()
            raise urllib.error.HTTPError("http://x", current[0], "no", head, body)
        return _Answer(current[1])

    kit.patch.setattr(urllib.request.OpenerDirector, "open", answer)
    return current


TARGETS = {
    "data": {
        "activeTargets": [
            {
                "health": "down",
                "labels": {"job": "app", "instance": "x"},
                "scrapeUrl": "http://x/metrics",
                "lastError": "refused",
            }
        ]
    }
}
METRICS = b'# TYPE pg_up gauge\npg_up 1\nredis_up{a="b"} 0\npg_up 1.5e3\n'


@fuzzed(
    "answers to status",
    "status_asks.ready, gauge, targets",
    *("roles/status/module_utils/status_asks.py", "roles/status/logic/model.py"),
    form=Lines([b"pg_up", b"1e999", b"-", b"+.e", b"NaN", b'{a="}"}'], inner=Json()),
    refusals=(),
)
def of_asks(kit: Kit) -> Case:
    """Any answer of a service becomes a finding that the status report can print."""
    asks = plugin("status/module_utils/status_asks.py")
    model = __import__("roles.status.logic.model", fromlist=["model"])
    current = _answering(kit)
    ask = {"name": "x", "url": "http://x", "gauge": "pg_up"}
    seeds = [json.dumps(READY).encode(), json.dumps(TARGETS).encode(), METRICS]

    def check(data: bytes) -> None:
        for status in (200, 503):
            current[:] = [status, data]
            found = [asks.ready(ask), asks.gauge(ask), asks.targets(ask), asks.plain(ask)]
            json.dumps(found)
            assert model.wrong_checks(found[0])
            for one in found[2]["down"]:
                assert isinstance(one["url"], str)
            assert found[1]["value"] is None or isinstance(found[1]["value"], float)

    return Case(seeds, check)


@fuzzed(
    "answers to gates",
    "http_probe.Answer.readiness, swap_standby.check_answer, swap_smoke.identify",
    *("roles/site/module_utils/http_probe.py", "roles/app/library/app_ready.py"),
    *("roles/swap/module_utils/swap_standby.py", "roles/swap/library/swap_smoke.py"),
    form=Json(words=(b'"checks"', b'"release"', b'"1.1.0"')),
    refusals=(),
)
def of_gates(kit: Kit) -> Case:
    """A gate passes only the intended release; for any other answer it gives a reason."""
    ready = plugin("app/library/app_ready.py")
    standby = plugin("swap/module_utils/swap_standby.py")
    smoke = plugin("swap/library/swap_smoke.py")
    current = _answering(kit)
    options: dict[str, Any] = {
        "container": "app",
        "url": "http://x",
        "release": "1.1.0",
        "colour": "green",
    }
    options |= {"seconds": 5, "timeout": 5, "key": "", "ca_file": "", "validate": True}
    seeds = [json.dumps(READY).encode()]

    def check(data: bytes) -> None:
        for status in (200, 503):
            current[:] = [status, data]
            answer = ready.ask("http://x")
            assert answer.status == status
            assert isinstance(ready.why_not(status, answer.readiness()), str)
            for act, error in (
                (standby.check_answer, standby.RefusedError),
                (smoke.identify, smoke.RefusedError),
            ):
                why: Exception | None = None
                try:
                    act(options)
                except error as caught:
                    why = caught
                good = why is None
                assert good or str(why)
                # A gate never passes an answer without this release.
                assert not good or (status == 200 and json.loads(data)["release"] == "1.1.0")

    return Case(seeds, check)


LOG = b"""{"level": "info", "event": "request"}
{"level": "error", "event": "failed", "reason": "no space left"}
nginx: [emerg] host not found in upstream
plain words
"""


@fuzzed(
    "logs of containers",
    "status_engine.reason_in, engine_client.last_words, app_reason",
    *("roles/site/module_utils/container_logs.py", "roles/status/module_utils/status_engine.py"),
    *("roles/container/module_utils/container_wait.py",),
    "roles/app/filter_plugins/app.py",
    form=Lines([b'"level"', b"error", b"fatal:", b"\x1b[31m"], inner=Json()),
    refusals=(),
)
def of_logs(kit: Kit) -> Case:
    """The last words of a container are one line, whatever its log contains."""
    engine = plugin("status/module_utils/status_engine.py")
    probes = plugin("container/module_utils/container_wait.py")
    client = plugin("site/module_utils/engine_client.py")
    filters = plugin("app/filter_plugins/app.py")
    current = [""]

    def said(*arguments: str, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, 0, current[0], "")

    kit.patch.setattr(client, "docker", said)

    def check(data: bytes) -> None:
        current[0] = data.decode("utf-8", "replace")
        readers: tuple[Callable[[], str], ...] = (
            lambda: engine.reason_in(current[0]),
            lambda: probes.short(client.last_words("x")),
            lambda: engine.short(filters.app_reason(current[0])),
        )
        for reader in readers:
            found = reader()
            assert len(found.splitlines()) <= 1, found
            assert len(found) <= 400
        assert engine.seconds_since(current[0][:40], 0.0) >= 0

    return Case([LOG], check)


DAEMON = {"dns": ["192.0.2.1"], "log-driver": "local", "live-restore": True, "iptables": True}


@fuzzed(
    "configuration of the engine",
    "engine_configuration.read, merged; engine_rules.makes_rules",
    *("roles/container_engine/module_utils/engine_configuration.py",),
    *(
        "roles/container_engine/module_utils/engine_rules.py",
        "roles/status/module_utils/status_rules.py",
    ),
    form=Json(words=(b'"iptables"', b'"log-opts"', b"\xff")),
    refusals=(),
)
def of_daemon(kit: Kit) -> Case:
    """A client's file is refused with its path, or keeps every key when merged."""
    module = plugin("container_engine/module_utils/engine_configuration.py")
    rules = plugin("container_engine/module_utils/engine_rules.py")
    status = plugin("status/module_utils/status_rules.py")
    path = kit.folder / "daemon.json"
    kit.patch.setattr(status, "DAEMON", path)
    settings = {"live-restore": True, "log-opts": {"max-size": "1m"}}

    def check(data: bytes) -> None:
        path.write_bytes(data)
        assert isinstance(rules.makes_rules(path, kit.folder / "no.pid"), bool)
        assert isinstance(status.makes_rules(), bool)
        refusal = ""
        try:
            found = module.read(path)
        except module.RefusedError as error:
            refusal = str(error)
        if refusal:
            assert str(path) in refusal
            return
        wanted = module.merged(found, {}, settings)
        assert set(found) <= set(wanted)
        assert wanted["live-restore"] is True
        json.dumps(wanted)

    return Case([json.dumps(DAEMON).encode(), b"{}", b""], check)


@fuzzed(
    "answers of neighbours for an address",
    "host_shared.answer_in",
    "roles/preflight/module_utils/host_shared.py",
    form=Bytes(words=(b"\x08\x06", b"\x00\x02", socket.inet_aton("10.0.1.100"))),
    refusals=(),
)
def of_arp(_kit: Kit) -> Case:
    """Any frame yields a hardware address or nothing."""
    module = plugin("preflight/module_utils/host_shared.py")
    mac, own, wanted = bytes.fromhex("005056000001"), "10.0.1.10", "10.0.1.100"
    question = module.request(mac, wanted, own)
    answer = question[:20] + b"\x00\x02" + question[22:]

    def check(data: bytes) -> None:
        found = module.answer_in(data, wanted)
        assert found == "" or len(bytes.fromhex(found.replace(":", ""))) == 6
        if data == answer:
            assert found == "00:50:56:00:00:01"
        if found:
            assert socket.inet_aton(wanted) in data

    return Case([question, answer + bytes(18)], check)
