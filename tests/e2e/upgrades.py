"""Helpers of the upgrade tests: the agent, the database, and the expected state of a site."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import yaml

from bundle.builder.images import engine
from scripts.journey import HOME, SITE, VAULT_PASSWORD, Journey
from scripts.lab import Done
from tests.e2e.support import HOSTS, kill_playbook

#: Options for a play on a site that preflight has just checked.
NO_PREFLIGHT = ("--skip-tags", "preflight")
SETTINGS = f"{SITE}/group_vars/all/main.yml"
INVENTORY = f"{SITE}/hosts.yml"
VERBS = ("install", "upgrade", "rollback", "retire", "drain", "bring_back")
APP_HOSTS = [host for host in HOSTS if host.startswith("app")]


def agent(journey: Journey, *words: str) -> dict[str, Any]:
    """Call the swap agent on the edge; return its answer."""
    done = journey.lab.console("edge-1", 'exec airlift-swap "$@"', *words)
    answer: dict[str, Any] = json.loads(done.output)
    return answer


def serving(journey: Journey) -> str:
    """Return the active release."""
    return str(agent(journey, "show")["release"])


def until_well(journey: Journey, seconds: float = 180) -> None:
    """Wait until status finds nothing wrong: health checks take their time after a start."""
    deadline = time.monotonic() + seconds
    while True:
        journey.play("status", release=serving(journey))
        report = json.loads(journey.lab.read("jump", f"{SITE}/.airlift/status.json"))
        if report["verdict"] == "ok":
            return
        assert time.monotonic() < deadline, report["problems"]
        time.sleep(3)


def offer(journey: Journey) -> None:
    """Import release 1.1.0 on the jump host from a delta."""
    if journey.lab.ssh("test -d /opt/airlift/releases/1.1.0", check=False).code != 0:
        with journey.timed("bring 1.1.0"):
            journey.bring(patch="1.1.0")


@contextmanager
def holding(journey: Journey, statement: str) -> Iterator[None]:
    """Keep a transaction open in which a statement was run."""
    code = """
import subprocess, sys
words = "docker exec -i airlift-postgres psql -X -q -U postgres -d airlift -tA".split()
with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as psql:
    psql.stdin.write(b"SET idle_in_transaction_session_timeout = 0; BEGIN; " + sys.argv[1].encode())
    psql.stdin.write(b"; SELECT 'held';\\n")
    psql.stdin.flush()
    while psql.stdout.readline() != b"held\\n":
        pass
    print("held", flush=True)
    sys.stdin.read()
"""
    with journey.lab.running("data-1", code, statement):
        yield


#: Runs on the edge: says when a run that begins now enters a step; the journal's last line may be
#: half written. Ends with its standard input.
_REACHED = """
import json, os, sys, threading, time
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
path = "/var/lib/airlift/swap/journal"
# A site that was never upgraded has none yet.
end = os.path.getsize(path) if os.path.exists(path) else 0
print("ready", flush=True)
while not os.path.exists(path):
    time.sleep(0.05)
journal = open(path)
journal.seek(end)
line = ""
while True:
    line += journal.readline()
    if not line.endswith("\\n"):
        time.sleep(0.05)
        continue
    record, line = json.loads(line), ""
    if (record["step"], record["event"]) == (sys.argv[1], "intent"):
        break
print("reached", flush=True)
sys.stdin.read()
"""


def kill_in(
    journey: Journey, verb: str, step: str, seconds: float, *, options: Sequence[str] = ()
) -> tuple[Done, str]:
    """Run a playbook; kill it some seconds into a step. Return how it ended, and where it was.

    The agent's journal says where: Ansible announces a task only when a host has done it.
    """
    argv = [*engine.docker(), "exec", "--interactive", journey.lab.name("edge-1")]
    with subprocess.Popen(
        [*argv, "python3", "-c", _REACHED, step], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"ready\n"

        reached = threading.Event()

        def watch(stream: IO[bytes]) -> None:
            if stream.readline() == b"reached\n":
                reached.set()
                time.sleep(seconds)
                kill_playbook(journey)

        watcher = threading.Thread(target=watch, args=[reader.stdout])
        watcher.start()
        try:
            # Preflight's result does not change between two kills.
            done = journey.play(verb, *NO_PREFLIGHT, *options, check=False)
        finally:
            assert reader.stdin is not None
            reader.stdin.close()
            watcher.join()
    assert reached.is_set(), f"{verb} never began {step}: {done.output[-2000:]}"
    left = agent(journey, "show")["unfinished"]
    run = max(left, key=lambda one: one["seq"] * (one["step"] in VERBS))["run"] if left else ""
    steps = [one for one in left if one["step"] not in VERBS and one["run"] == run]
    return done, max(steps, key=lambda one: one["seq"])["step"] if steps else ""


def services(journey: Journey, host: str) -> dict[str, tuple[str, str]]:
    """Return what a host's engine has: service: (state, release)."""
    form = '{{.Label "airlift.service"}} {{.State}} {{.Label "airlift.release"}} {{.Names}}'
    lines = journey.lab.console(host, f"docker ps --all --format '{form}'").output.splitlines()
    found = {}
    for line in lines:
        service, state, release, _ = line.split(" ")
        assert service, f"a container that is not ours, or was left over: {line}"
        found[service] = (state, release)
    return found


def serves(journey: Journey, release: str, colour: str) -> dict[str, Any]:
    """Check that a release serves with a colour, and that no run is in progress or interrupted."""
    said = agent(journey, "show")
    assert (said["release"], said["active"]) == (release, colour)
    assert said["served_generation"] == said["live_generation"] == said["generation"]
    assert (said["lease"], said["unfinished"]) == (None, [])
    for host in APP_HOSTS:
        there = services(journey, host)
        assert there[f"app-{colour}"] == ("running", release)
        assert there[f"worker-{colour}"] == ("running", release)
        # A container that must not run must not exist, because a stopped one could start again.
        assert {state for state, _ in there.values()} == {"running"}, there
        assert [name for name in there if "worker" in name] == [f"worker-{colour}"]
    return said


#: Runs on the jump host: removes names from the site's vault, so that they are generated again.
_FORGET = """
import subprocess, sys, yaml
vault, password, *names = sys.argv[1:]
words = ["venv/bin/ansible-vault", "--vault-id", f"lab@{password}"]
words = [words[0], "view", *words[1:], vault]
text = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout
kept = {name: value for name, value in yaml.safe_load(text).items() if name not in names}
words[1] = "encrypt"
words[-1:] = ["--encrypt-vault-id", "lab", "--output", vault]
subprocess.run(words, input=yaml.safe_dump(kept), check=True, text=True)
"""


def rotate(journey: Journey, *names: str) -> None:
    """Put new secrets into the site's vault under these names."""
    vault = f"{SITE}/group_vars/all/vault.yml"
    words = shlex.join([vault, VAULT_PASSWORD, *names])
    command = f"cd {HOME}/current && venv/bin/python - {words}"
    journey.lab.ssh(command, stdin=_FORGET)
    journey.place_site()


def edit(journey: Journey, path: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a YAML file of the site's inventory."""
    found = yaml.safe_load(journey.lab.read("jump", path))
    change(found)
    journey.lab.ssh(f"cat > {path}", stdin=yaml.safe_dump(found, sort_keys=False))


def set_score(journey: Journey, score: float | None) -> None:
    """Set the service's score of a text without evidence; None removes the setting."""

    def change(settings: dict[str, Any]) -> None:
        settings.pop("app_baseline_score", None)
        if score is not None:
            settings["app_baseline_score"] = score

    edit(journey, SETTINGS, change)


def nothing_is_left_over(journey: Journey) -> None:
    """Check that an ended run leaves no container, lock, partial file or open port."""
    edge, data = journey.lab.console, journey.lab.console
    assert (
        edge("edge-1", "find /etc/airlift/edge -name '*.staged' -o -name 'live.new'").output == ""
    )
    assert edge("edge-1", "find /var/lib/airlift/swap -name '*.new' -o -name '*.beat'").output == ""
    # A site that was never upgraded has no such folder.
    half = " -o ".join(f"-path '/var/lib/airlift/backup/{one}'" for one in ("*.part", "scratch"))
    assert data("data-1", f"find /var/lib/airlift -maxdepth 2 {half}").output == ""
    for host in HOSTS:
        running = set(services(journey, host))
        assert not running & {"migrate", "keys", "postgres-initdb"}
        # The tunnel to the jump host's registry.
        listening = journey.lab.console(host, "ss -Htln sport = :5479").output
        assert listening == "", host
        left = "find /tmp /home/*/.ansible -path '*ansible-tmp-*' 2>/dev/null || :"
        assert journey.lab.console(host, left).output == ""
