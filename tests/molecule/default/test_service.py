"""One hardened container: what it may, what it must not know, when it is replaced."""

import json
from typing import Any

import testinfra

from tests.molecule.default.conftest import Run

SAID = "hunter2-hunter2"


def container(host: testinfra.host.Host) -> dict[str, Any]:
    (found,) = json.loads(host.check_output("docker inspect airlift-demo"))
    return dict(found)


def test_it_is_hardened(host: testinfra.host.Host) -> None:
    settings = container(host)["HostConfig"]
    assert settings["ReadonlyRootfs"]
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert settings["SecurityOpt"] == ["no-new-privileges:true"]
    assert settings["Memory"] == settings["MemorySwap"] == 256 << 20
    assert settings["PidsLimit"] == 256
    assert settings["LogConfig"]["Config"] == {"max-size": "20m", "max-file": "5"}
    assert settings["RestartPolicy"]["Name"] == "always"
    assert not settings["Privileged"]


def test_it_is_nobody_in_particular(host: testinfra.host.Host) -> None:
    status = host.check_output("docker exec airlift-demo cat /proc/1/status")
    assert "\nUid:\t10001\t10001\t10001\t10001\n" in status
    assert "\nCapEff:\t0000000000000000\n" in status
    assert "\nNoNewPrivs:\t1\n" in status
    assert host.run("docker exec airlift-demo touch /x").rc != 0
    assert host.run("docker exec airlift-demo touch /etc/airlift/demo/x").rc != 0
    assert host.run("docker exec airlift-demo touch /data/x").rc == 0


def test_secrets_are_for_its_user_alone(host: testinfra.host.Host) -> None:
    for name in ("password", "tls.key", "ca.pem"):
        file = host.file(f"/etc/airlift/secrets/demo/{name}")
        assert (file.mode, file.uid, file.gid) == (0o400, 10001, 10001)
    assert host.file("/etc/airlift/secrets/demo").mode == 0o500
    assert host.check_output("docker exec airlift-demo cat /run/secrets/password") == SAID


def test_secrets_are_nowhere_else(host: testinfra.host.Host) -> None:
    assert SAID not in host.check_output("docker inspect airlift-demo")
    assert SAID not in host.check_output("cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert SAID not in host.check_output("journalctl --no-pager --quiet | cat")


def test_a_changed_secret_replaces_it_once_and_is_not_shown(
    host: testinfra.host.Host, converge: Run
) -> None:
    before = container(host)
    first = converge("service", "--extra-vars", "demo_secret=other-other", "-vvv")
    after = container(host)
    second = converge("service", "--extra-vars", "demo_secret=other-other")
    assert first.returncode == second.returncode == 0, first.stdout
    assert "other-other" not in first.stdout.replace("demo_secret=other-other", "")
    assert "0 changed, 0 failed, " in second.stdout
    assert after["Id"] != before["Id"]
    assert after["RestartCount"] == 0
    assert container(host)["Id"] == after["Id"]


def test_a_killed_run_is_finished(host: testinfra.host.Host, converge: Run) -> None:
    """Files new, container old: as if the run had been killed between the two."""
    host.check_output("printf two > /etc/airlift/services/demo/text")
    finished = converge("service", "--extra-vars", "demo_text=two")
    assert finished.returncode == 0, finished.stdout
    assert (
        host.check_output(
            "curl -s http://127.0.0.1:443 || wget -qO- http://127.0.0.1:443 || "
            "docker exec airlift-demo cat /etc/airlift/demo/text"
        )
        == "two"
    )
    assert "\n0 changed, " not in finished.stdout


def test_a_configuration_that_its_program_refuses_changes_nothing(
    host: testinfra.host.Host, converge: Run
) -> None:
    before = container(host)
    wrong = ["-e", "demo_text=bad", "-e", "demo_check=false"]
    refused = converge("service", *wrong, changes=False)
    assert refused.returncode != 0
    assert "are not valid and were not installed" in refused.stdout
    assert host.file("/etc/airlift/services/demo/text").content_string == "one"
    assert container(host)["Id"] == before["Id"]


def test_a_sick_container_says_its_last_words(converge: Run) -> None:
    sick = converge("service", "--extra-vars", '{"demo_health": "exit 1"}')
    assert sick.returncode != 0
    assert "airlift-demo on site-1" in sick.stdout
    assert "listening" in sick.stdout
    assert "docker logs airlift-demo" in sick.stdout
