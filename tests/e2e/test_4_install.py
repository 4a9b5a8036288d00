"""The installed site: each part exists, is healthy, and is what the manifest names."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import testinfra

from scripts.journey import SITE, SITE_CA, VAULT_PASSWORD, Journey, recap
from scripts.lab import Lab
from tests.e2e.support import HOSTS, LOG, MARKER, SITE_DEFAULTS, WATCHED, zone_of

#: Looks for secrets, given on standard input, in everything on a host but the files for them.
_SECRETS = """
import json, pathlib, subprocess, sys
secrets = json.load(sys.stdin)
me = {str(number) for number in (__import__("os").getpid(), __import__("os").getppid())}
found = []
def look(where, data):
    for name, value in secrets.items():
        if value.encode() in data:
            found.append(f"{name} in {where}")
for process in pathlib.Path("/proc").iterdir():
    if process.name.isdigit() and process.name not in me:
        for part in ("cmdline", "environ"):
            try:
                look(f"/proc/{process.name}/{part}", (process / part).read_bytes())
            except OSError:
                pass
def run(*words):
    done = subprocess.run(words, capture_output=True)
    return done.stdout + done.stderr
if pathlib.Path("/usr/bin/docker").exists():
    ids = run("docker", "ps", "--all", "--quiet").decode().split()
    for one in ids:
        look(f"docker inspect {one}", run("docker", "inspect", one))
        look(f"docker logs {one}", run("docker", "logs", one))
look("journal", run("journalctl", "--no-pager", "--output=export"))
for folder in sys.argv[1:]:
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file() and not path.is_symlink():
            try:
                look(str(path), path.read_bytes())
            except OSError:
                pass
print(json.dumps(found))
"""


def containers(lab: Lab, host: str) -> list[dict[str, Any]]:
    """Return what the host's engine reports about its containers."""
    script = "docker ps --all --quiet | xargs --no-run-if-empty docker inspect"
    found: list[dict[str, Any]] = json.loads(lab.console(host, script).output or "[]")
    return found


@pytest.mark.parametrize("host", HOSTS)
def test_engine_came_from_the_bundle(installed: Journey, host: str) -> None:
    machine = testinfra.get_host(f"docker://{installed.lab.name(host)}")
    assert machine.package("docker.io").is_installed
    assert machine.service("docker").is_running
    assert machine.service("docker").is_enabled
    carried = {member["path"].rpartition("/")[2] for member in installed.facts.manifest["members"]}
    version = machine.package("docker.io").version.replace(":", "%3a")
    assert any(name.startswith(f"docker.io_{version}") for name in carried)


@pytest.mark.parametrize("host", HOSTS)
def test_everything_is_healthy(installed: Journey, host: str) -> None:
    there = containers(installed.lab, host)
    assert there
    for container in there:
        state = container["State"]
        assert state["Running"], container["Name"]
        assert state.get("Health", {"Status": "healthy"})["Status"] == "healthy", container["Name"]
        assert container["RestartCount"] == 0, container["Name"]


@pytest.mark.parametrize("host", HOSTS)
def test_images_are_the_manifests(installed: Journey, host: str) -> None:
    """The manifest lists the image id of every container, in the form of the host's image store."""
    info = json.loads(installed.lab.console(host, "docker info --format '{{json .}}'").output)
    status = dict(info["DriverStatus"])
    containerd = status.get("driver-type") == "io.containerd.snapshotter.v1"
    key = "manifest_digest" if containerd else "config_digest"
    components = installed.facts.manifest["components"]
    for container in containers(installed.lab, host):
        component = container["Config"]["Labels"]["airlift.component"]
        assert container["Image"] == components[component][key], container["Name"]


@pytest.mark.parametrize("host", HOSTS)
def test_only_images_of_its_zone(installed: Journey, host: str) -> None:
    wanted = {
        name
        for name, zones in SITE_DEFAULTS["site_components"].items()
        if {"all", zone_of(host)} & set(zones) and name in installed.facts.manifest["components"]
    }
    script = "docker images --quiet --no-trunc | sort -u"
    ids = installed.lab.console(host, script).output.split()
    digests = {
        component[key]: name
        for name, component in installed.facts.manifest["components"].items()
        for key in ("config_digest", "manifest_digest")
    }
    assert {digests.get(one, one) for one in ids} == wanted


@pytest.mark.parametrize("host", HOSTS)
def test_containers_are_hardened(installed: Journey, host: str) -> None:
    for container in containers(installed.lab, host):
        config, name = container["HostConfig"], container["Name"]
        assert config["ReadonlyRootfs"], name
        assert config["CapDrop"] == ["ALL"], name
        assert "no-new-privileges" in " ".join(config["SecurityOpt"]), name
        assert not config["Privileged"], name
        assert config["Memory"] > 0, name
        assert config["PidsLimit"] > 0, name
        assert config["RestartPolicy"]["Name"] == "always", name
        assert config["LogConfig"]["Config"]["max-size"], name
        assert container["Config"]["User"].split(":")[0] not in ("", "0", "root"), name


def test_prometheus_sees_every_target_up(installed: Journey) -> None:
    code = """
import json, ssl, sys, time, urllib.parse, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
url = "https://172.30.4.10:9090/api/v1/targets?state=active"
for attempt in range(40):
    with urllib.request.urlopen(url, context=context, timeout=10) as answer:
        targets = json.load(answer)["data"]["activeTargets"]
    down = [(t["scrapeUrl"], t["lastError"]) for t in targets if t["health"] != "up"]
    if targets and not down:
        break
    time.sleep(2)
print(json.dumps({"jobs": sorted({t["labels"]["job"] for t in targets}), "down": down}))
"""
    found = json.loads(installed.lab.python("jump", code, SITE_CA).output)
    assert found["down"] == []
    assert {"app", "worker", "postgres", "redis", "nginx", "node", "prometheus"} <= set(
        found["jobs"]
    )


@pytest.fixture(scope="module")
def said(installed: Journey) -> str:
    """Status reports a site without problems."""
    return installed.status().output


def test_what_is_absent_is_said(installed: Journey, said: str) -> None:
    """Grafana has no Debian package: manifest and status both report that.

    Status does not mention packages of operating systems that no host here has.
    """
    for name in installed.facts.manifest["absent"]:
        assert (f"absent: {name}" in said) is not name.startswith("packages-")


def test_status_finds_nothing_wrong(installed: Journey, said: str) -> None:
    assert recap(said).changed == 0
    assert installed.facts.manifest["version"] in said
    report = json.loads(installed.lab.read("jump", f"{SITE}/.airlift/status.json"))
    assert (report["verdict"], report["format"]) == ("ok", 1), report["problems"]
    assert report["sentence"] in " ".join(said.split())
    assert "everything is as it should be" in said


def secrets_of(journey: Journey) -> dict[str, str]:
    """Return the vault's values; tests must never print them."""
    command = "cd /opt/airlift/current && ./venv/bin/ansible-vault view"
    vault = journey.lab.ssh(
        f"{command} --vault-id lab@{VAULT_PASSWORD} {SITE}/group_vars/all/vault.yml"
    ).output
    secret = ("_password: ", "_api_key: ")
    lines = [line for line in vault.splitlines() if any(word in line for word in secret)]
    pairs = (line.split(": ", 1) for line in lines)
    found = {name: value.strip("'\"") for name, value in pairs}
    found["vault password"] = journey.lab.ssh(f"cat {VAULT_PASSWORD}").output.strip()
    assert "site_smoke_api_key" in found
    found["API key"] = (journey.cache / "api-key").read_text().strip()
    assert min(map(len, found.values())) >= 20
    return found


@pytest.mark.parametrize("host", ["jump", *HOSTS])
def test_no_secret_shows(installed: Journey, host: str) -> None:
    """No secret is in arguments, environments, logs, the journal, the engine's reports or /tmp."""
    folders = ["/var/log", "/tmp", "/etc/systemd", "/home"]  # noqa: S108 - of the lab's hosts
    program = f"import io, sys\nsys.argv = ['', *{folders!r}]\n{_SECRETS}"
    done = installed.lab.console(
        host, 'exec python3 -c "$1"', program, stdin=json.dumps(secrets_of(installed))
    )
    assert json.loads(done.output) == []


@pytest.mark.parametrize("host", ["jump", *HOSTS])
def test_no_process_was_given_a_secret_while_it_was_installed(
    installed: Journey, host: str
) -> None:
    """No process, however short, gets a secret as an argument or in its environment."""
    if installed.lab.console(host, f"test -e {WATCHED}", check=False).code != 0:
        pytest.skip("the site was installed by another run (AIRLIFT_E2E_KEEP)")
    seen = installed.lab.read(host, WATCHED)
    assert MARKER.encode() in seen
    secrets = secrets_of(installed)
    assert [name for name, value in secrets.items() if value.encode() in seen] == []


def test_no_secret_in_what_ansible_prints(installed: Journey) -> None:
    """The output has no secret, even with the highest verbosity and with differences."""
    text = LOG.read_text()
    if "ESTABLISH SSH CONNECTION" not in text:
        pytest.skip("the site was installed by another run (AIRLIFT_E2E_KEEP)")
    assert "+++ after" in text
    assert [name for name, value in secrets_of(installed).items() if value in text] == []


@pytest.mark.parametrize("host", HOSTS)
def test_secret_files_are_for_their_service_only(installed: Journey, host: str) -> None:
    script = "cd /etc/airlift/secrets 2>/dev/null || exit 0; find . -type f ! -perm 0400"
    assert installed.lab.console(host, script).output == ""
    others = "cd /etc/airlift/secrets 2>/dev/null || exit 0; find . -mindepth 1 -perm /077 -type d"
    assert installed.lab.console(host, others).output == ""


def test_postgres_is_reached_by_tls_only(installed: Journey) -> None:
    query = """select ssl, count(*) from pg_stat_ssl join pg_stat_activity using (pid)
               where client_addr is not null group by ssl"""
    command = f'docker exec airlift-postgres psql -U postgres -d airlift -tAc "{query}"'
    rows = installed.lab.console("data-1", command).output.split()
    assert [row.split("|")[0] for row in rows] == ["t"]


def test_the_operator_never_needed_root_on_the_jump_host(installed: Journey) -> None:
    owners = installed.lab.console("jump", "find /opt/airlift ! -user operator | head")
    assert owners.output == ""


def test_one_host_is_repaired_alone(installed: Journey) -> None:
    """A run with ``--limit`` restores what one host lacks and changes no other host."""
    lab = installed.lab

    def started(host: str) -> dict[str, str]:
        return {one["Name"]: one["State"]["StartedAt"] for one in containers(lab, host)}

    others = [host for host in HOSTS if host != "monitor-1"]
    names, before = set(started("monitor-1")), {host: started(host) for host in others}
    lab.console("monitor-1", "docker ps --all --quiet | xargs docker rm --force")
    output = installed.play("install", "--limit", "monitor-1").output
    assert set(re.findall(r"^changed: \[([^] ]+)", output, re.MULTILINE)) == {"monitor-1"}
    assert set(started("monitor-1")) == names
    assert {host: started(host) for host in others} == before
