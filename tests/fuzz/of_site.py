"""What runs on hosts and the jump host reads of others: records, answers, logs, clients' files."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import email.message
import io
import ipaddress
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID
from swap_agent import lease, nginx, probe, replicas, runs, swap, watch
from swap_agent.state import SwapError

from roles.key.logic import listedit, vaultfile
from tests.fuzz.mutate import SEAM, Bytes, Files, Json, Lines
from tests.fuzz.parser import Case, Kit, fuzzed
from tests.unit.roles.conftest import plugin
from tests.unit.site.swapkit import World

AGENT = "roles/edge/files/swap_agent"


def _world(kit: Kit) -> World:
    """Return an edge on which an upgrade began, with an engine of paper."""
    world = World(kit.folder)
    kit.patch.setattr(nginx, "engine", world.engine)
    kit.patch.setattr(swap, "engine", world.engine)
    kit.patch.setattr(nginx, "started", lambda _: "1")
    kit.patch.setattr(nginx.Edge, "hup", lambda _: world.hup())
    kit.patch.setattr(nginx.Edge, "answered", lambda _: world.serving)
    world.apply()
    world.start()
    world.begin(release="1.1.0")
    world.step("images")
    world.switch()
    return world


@fuzzed(
    "records of the edge",
    "swap_agent.swap.show, runs.begin, swap.undo, runs.end",
    *(f"{AGENT}/{name}.py" for name in ("state", "lease", "journal", "watch", "swap", "runs")),
    form=Files((Json(), Json(), Json(), Lines(inner=Json()), Json())),
    refusals=(SwapError,),
    slow=True,
)
def of_records(kit: Kit) -> Case:
    """Whatever is in its files, the agent answers or says in words which file is damaged."""
    # Nothing here has to outlive a power cut.
    kit.patch.setattr(os, "fsync", lambda _: None)
    world = _world(kit)
    folder = world.settings.state_file.parent
    seen = watch.Watch(world.edge)
    world.settings.watch_dir.mkdir(parents=True, exist_ok=True)
    seen.tell()
    places = [
        world.settings.state_file,
        folder / "lease.json",
        folder / "lease.pulse",
        folder / "journal",
        world.settings.watch_dir / watch.STATE,
    ]
    seed = SEAM.join(place.read_bytes() for place in places)

    def check(data: bytes) -> None:
        for place, raw in zip(places, data.split(SEAM), strict=False):
            place.write_bytes(raw)
        said: SwapError | None = None
        for act in (
            lambda: swap.show(world.edge),
            lambda: world.begin(release="1.1.0"),
            lambda: swap.undo(world.edge, run="run-1"),
            lambda: runs.beat(world.edge, run="run-1", seconds=60),
            lambda: world.end("it failed"),
        ):
            try:
                json.dumps(act())
            except SwapError as error:
                said = error
        watch.Watch(world.edge).tell()
        if said is not None:
            assert str(said)
            raise said

    return Case([seed], check)


@fuzzed(
    "lease",
    "swap_agent.lease.held",
    f"{AGENT}/lease.py",
    form=Files((Json(), Json())),
    refusals=(SwapError,),
)
def of_lease(kit: Kit) -> Case:
    """What is read can be shown, compared and given back."""
    path = kit.folder / "lease.json"
    lease.acquire(path, run="run-1", owner="ann", verb="upgrade", seconds=60)
    pulse = path.with_suffix(".pulse")
    seed = SEAM.join((path.read_bytes(), pulse.read_bytes()))

    def check(data: bytes) -> None:
        first, _, second = data.partition(SEAM)
        path.write_bytes(first)
        pulse.write_bytes(second)
        found = lease.held(path)
        if found is not None:
            assert found.given_back() in (True, False)
            assert found.run in str(lease.HeldError(found))

    return Case([seed], check)


UPSTREAM = b"""# Requests go to blue and, only when no blue answers, to green.
upstream app {
    zone app 256k;
    server 192.0.2.11:8001 max_fails=20 fail_timeout=2s; # app-1
    server 192.0.2.12:8001 max_fails=20 fail_timeout=2s down; # app-2
    server 192.0.2.11:8002 max_fails=20 fail_timeout=2s backup; # app-1
    keepalive 32;
}

# What the preview listener shows: the colour that does not serve.
upstream preview {
    zone preview 64k;
    server 192.0.2.11:8002; # app-1
}
"""


@fuzzed(
    "upstream file",
    "swap_agent.replicas.marked",
    *(f"{AGENT}/replicas.py", f"{AGENT}/refusal.py"),
    form=Lines([b"server", b"down;", b"backup", b"# x", b"}", b"upstream app {", b";"]),
    refusals=(),
)
def of_upstream(kit: Kit) -> Case:
    """Only the mark comes and goes, and marking twice is marking once."""

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        there = [one.address for one in replicas.servers(text)]
        for out in ({"192.0.2.11:8001"}, set(there[:1]), set(there), set[str]()):
            after = replicas.marked(text, out)
            assert replicas.marked(after, out) == after
            assert [one.address for one in replicas.servers(after)] == there
            assert replicas.downs(after) <= out
            assert replicas.marked(after, ()) == replicas.marked(text, ())
            for backup in (False, True):
                group = [one for one in replicas.servers(after) if one.backup is backup]
                assert not group or not all(one.down for one in group)
            assert replicas.blocked(text, out) <= out

    return Case([UPSTREAM], check)


READY = {
    "status": "not ready",
    "release": "1.1.0",
    "colour": "green",
    "checks": {"postgres": "ok", "redis": "connection refused"},
}
ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
    b"content-length: 120\r\n\r\n" + json.dumps(READY).encode()
)


class _Writer:
    """Takes the question."""

    def write(self, data: bytes) -> None:
        """Take it."""

    def close(self) -> None:
        """End."""


@fuzzed(
    "answer to the probe",
    "swap_agent.probe.ask",
    f"{AGENT}/probe.py",
    form=Lines([b"HTTP/1.1", b"200", b"503", b"x" * 70_000], inner=Json(), end=b"\r\n"),
    refusals=(),
)
def of_probe(kit: Kit) -> Case:
    """Whatever a replica answers, it is ready or there is a reason in few printable words."""
    current = [b""]

    async def connect(*_: object) -> tuple[asyncio.StreamReader, _Writer]:
        reader = asyncio.StreamReader()
        reader.feed_data(current[0])
        reader.feed_eof()
        return reader, _Writer()

    kit.patch.setattr(asyncio, "open_connection", connect)
    loop = kit.loop()

    def check(data: bytes) -> None:
        current[0] = data
        why = loop.run_until_complete(probe.ask("192.0.2.11:8001"))
        assert len(why) <= 200
        assert why.isprintable(), why
        if why == "":
            assert data.split()[1] == b"200"

    return Case([ANSWER, b"HTTP/1.1 200 OK\r\n\r\n"], check)


class _Answer(io.BytesIO):
    """An answer of a service, as urllib gives it."""

    status = 200


def _answering(kit: Kit) -> list[Any]:
    """Let urllib answer everybody what is in the list: a status and a body."""
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
    """Whatever a service answers, status has a finding that its report can print."""
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
    "app_ready.ask, swap_standby.check_answer, swap_smoke.identify",
    *("roles/app/library/app_ready.py", "roles/swap/library/swap_standby.py"),
    "roles/swap/library/swap_smoke.py",
    form=Json(words=(b'"checks"', b'"release"', b'"1.1.0"')),
    refusals=(),
)
def of_gates(kit: Kit) -> Case:
    """Whatever answers, it is the release that was meant or a gate says why not."""
    ready = plugin("app/library/app_ready.py")
    standby = plugin("swap/library/swap_standby.py")
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
            found, said = ready.ask("http://x")
            assert found == status
            assert isinstance(ready.why_not(status, said), str)
            for act, error in (
                (standby.check_answer, standby.NotAbleError),
                (smoke.identify, smoke.SmokeError),
            ):
                why: Exception | None = None
                try:
                    act(options)
                except error as caught:
                    why = caught
                good = why is None
                assert good or str(why)
                # Nobody who does not say that it is this release gets through a gate.
                assert not good or (status == 200 and json.loads(data)["release"] == "1.1.0")

    return Case(seeds, check)


LOG = b"""{"level": "info", "event": "request"}
{"level": "error", "event": "failed", "reason": "no space left"}
nginx: [emerg] host not found in upstream
plain words
"""


@fuzzed(
    "logs of containers",
    "status_engine.reason_in, app_ready.last_words, service_probe.last_error, app_reason",
    *("roles/status/module_utils/status_engine.py", "roles/service/library/service_probe.py"),
    *("roles/app/filter_plugins/app.py", "roles/app/library/app_ready.py"),
    form=Lines([b'"level"', b"error", b"fatal:", b"\x1b[31m"], inner=Json()),
    refusals=(),
)
def of_logs(kit: Kit) -> Case:
    """The last words of a container are one line, whatever it wrote."""
    engine = plugin("status/module_utils/status_engine.py")
    probes = plugin("service/library/service_probe.py")
    ready = plugin("app/library/app_ready.py")
    filters = plugin("app/filter_plugins/app.py")
    current = [""]

    def said(*arguments: str, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, 0, current[0], "")

    kit.patch.setattr(probes, "engine", said)
    kit.patch.setattr(ready, "docker", said)

    def check(data: bytes) -> None:
        current[0] = data.decode("utf-8", "replace")
        readers: tuple[Callable[[], str], ...] = (
            lambda: engine.reason_in(current[0]),
            lambda: probes.last_error("x"),
            lambda: engine.short(ready.last_words("x")),
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
    *("roles/container_engine/library/engine_configuration.py",),
    *(
        "roles/container_engine/library/engine_rules.py",
        "roles/status/module_utils/status_rules.py",
    ),
    form=Json(words=(b'"iptables"', b'"log-opts"', b"\xff")),
    refusals=(),
)
def of_daemon(kit: Kit) -> Case:
    """A client's file is read or refused in words, and keeps every key of theirs."""
    module = plugin("container_engine/library/engine_configuration.py")
    rules = plugin("container_engine/library/engine_rules.py")
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


NAME = "app_api_keys"
OLD = f"- client: old\n    key_sha256: '{'0' * 64}'\n"
INVENTORIES = (
    f"a: 1  # kept\n{NAME}:\n  # who\n  {OLD}\n# b\nb: 2\n",
    f"all:\n  vars:\n    {NAME}: [{{client: old, key_sha256: '{'0' * 64}'}}]  # one\n    b: 2\n",
    f"{NAME}: []\nb: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n",
    "a: 1  # kept\n",
)


@fuzzed(
    "list in an inventory",
    "roles.key.logic.listedit.add, remove",
    "roles/key/logic/listedit.py",
    form=Lines(
        [b"- ", b"&a", b"*a", b"!!set", b"? ", b"|", b"'", b'"', b"{", b"[", b"<<:", b"\t", b"#"]
    ),
    refusals=(listedit.EditError,),
)
def of_inventory(kit: Kit) -> Case:
    """Only the list changes; what cannot be changed safely is refused in words."""
    entry = {"client": "new", "key_sha256": "1" * 64, "scopes": ["predict"]}

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        before = listedit.entries(text, NAME)
        after = listedit.add(text, NAME, entry)
        assert listedit.entries(after, NAME) == [*before, entry]
        back = listedit.remove(after, NAME, len(before))
        assert listedit.entries(back, NAME) == before

    return Case([one.encode() for one in INVENTORIES], check)


@fuzzed(
    "vault",
    "roles.key.logic.vaultfile.read",
    "roles/key/logic/vaultfile.py",
    form=Lines(
        [b"$ANSIBLE_VAULT;1.1;AES256", b"$ANSIBLE_VAULT;1.2;AES256;acme", b";", b"33", b"\xff"]
    ),
    refusals=(vaultfile.FileError,),
)
def of_vault(kit: Kit) -> Case:
    """A file is read, or it is said why not; what was altered is never opened."""
    text = f"# secrets\n{NAME}: []\npassword: s3cret\n"
    vault = VaultLib([(one, VaultSecret(b"right")) for one in ("acme", "default")])
    seeds = [
        bytes(VaultLib().encrypt(text, secret=VaultSecret(b"right"), vault_id=label))
        for label in ("acme", None)
    ]

    def check(data: bytes) -> None:
        found = vaultfile.read(kit.file("vault.yml", data), vault)
        assert not found.encrypted or found.text == text

    return Case([*seeds, text.encode()], check)


def _certificate(kit: Kit) -> tuple[bytes, Path]:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    names = [x509.DNSName("site.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, None)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.DER), kit.file("site.key", private)


@fuzzed(
    "certificate",
    "tls.tls_pair_problem",
    "roles/tls/filter_plugins/tls.py",
    form=Bytes(
        [b"\x30\x82", b"\x82\x0csite.example", b"\x87\x04", b"\x06\x03\x55\x1d\x11", b"\x88"]
    ),
    refusals=(),
)
def of_certificate(kit: Kit) -> Case:
    """A client's certificate is good or it is said what is wrong with it."""
    tls = plugin("tls/filter_plugins/tls.py")
    der, key = _certificate(kit)

    def check(data: bytes) -> None:
        text = b"-----BEGIN CERTIFICATE-----\n"
        text += base64.encodebytes(data) + b"-----END CERTIFICATE-----\n"
        path = kit.file("site.pem", text)
        for authority in (path, key):
            said = tls.tls_pair_problem(str(path), str(key), ["site.example"])
            assert isinstance(said, str)
            said = tls.tls_due(str(path), str(key), ["site.example"], 0, str(authority))
            assert isinstance(said, str)
            if authority == key:
                break

    return Case([der], check)


@fuzzed(
    "answers of the agent",
    "the action plugin swap_agent",
    "roles/swap/action_plugins/swap_agent.py",
    form=Json(words=(b'"holder"', b'"run"', b'"last_lease"', b'"unfinished"', b'"seq"')),
    refusals=(),
)
def of_agent(kit: Kit) -> Case:
    """Whatever the edge answers, the task has a result or fails in words."""
    module = plugin("swap/action_plugins/swap_agent.py")
    world = _world(kit)
    shown = json.dumps(swap.show(world.edge)).encode()
    held = json.dumps({"holder": {"run": "a.b.c.1.2", "owner": "ann"}}).encode()
    current = [b""]

    class Task:
        check_mode = False
        args: dict[str, Any] = {}  # noqa: RUF012

    action = module.ActionModule.__new__(module.ActionModule)
    action._task = Task()
    codes = [0]
    action._execute_module = lambda **_: {
        "rc": codes[0],
        "stdout": current[0].decode("utf-8", "replace"),
        "stderr": "airlift-swap: no",
    }
    kit.patch.setattr(module.ActionBase, "run", lambda *_, **__: {})

    def check(data: bytes) -> None:
        current[0] = data
        for command, code in (("show", 0), ("step", module.HELD), ("journal", 0), ("step", 1)):
            codes[0] = code
            Task.args = {"command": command, "options": {}}
            found = action.run(None, {})
            assert isinstance(found, dict)
            if command == "step":
                assert found.get("failed") is True
                assert found["msg"]

    return Case([shown, held], check)
