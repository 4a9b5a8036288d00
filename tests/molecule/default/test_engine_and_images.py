"""The engine and the image, as the release brought them."""

import json
import os
import time
from pathlib import Path

import testinfra

from tests.molecule.default.conftest import Run

MANIFEST = json.loads((Path(os.environ["AIRLIFT_TRY"]) / "release/manifest.json").read_text())
APP = MANIFEST["components"]["app"]


def test_the_engine_runs_now_and_after_a_reboot(host: testinfra.host.Host) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled


def test_the_engine_is_configured(host: testinfra.host.Host) -> None:
    info = json.loads(host.check_output("docker info --format '{{json .}}'"))
    assert info["LiveRestoreEnabled"]
    assert info["LoggingDriver"] == "json-file"
    assert info["DefaultAddressPools"] == [{"Base": "198.18.240.0/20", "Size": 24}]


def test_containers_cannot_talk_past_the_flow_table(host: testinfra.host.Host) -> None:
    (network,) = json.loads(host.check_output("docker network inspect airlift"))
    assert network["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert network["Options"]["com.docker.network.bridge.name"] == "airlift0"


def test_nothing_of_the_installation_is_left(host: testinfra.host.Host) -> None:
    assert not host.file("/usr/sbin/policy-rc.d").exists
    assert not host.file("/var/cache/airlift/packages").exists
    sources = host.run("cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null").stdout
    assert "airlift" not in sources


def test_the_image_is_the_releases(host: testinfra.host.Host) -> None:
    (image,) = json.loads(host.check_output("docker image inspect airlift/app:1.0"))
    assert image["Id"] == APP["config_digest"]
    assert image["RootFS"]["Layers"] == APP["diff_ids"]


def test_no_tunnel_is_left(host: testinfra.host.Host) -> None:
    assert not host.socket("tcp://127.0.0.1:5479").is_listening


def reload_sshd(host: testinfra.host.Host, change: str) -> None:
    """Change sshd's configuration; it listens anew, and refuses connections for a moment."""
    host.check_output(f"{change} && systemctl reload ssh && sleep 2")
    deadline = time.monotonic() + 60
    while True:
        try:
            host.check_output("true")
        except RuntimeError:  # testinfra's, when ssh finds nobody
            assert time.monotonic() < deadline
            time.sleep(1)
        else:
            return


def test_where_sshd_forbids_forwarding_images_are_streamed(
    host: testinfra.host.Host, converge: Run
) -> None:
    rule = "/etc/ssh/sshd_config.d/00-no-forwarding.conf"
    host.check_output("docker rm --force airlift-demo")
    # Under every name, or it would not be gone.
    host.check_output("docker image rm --force $(docker image ls --quiet --no-trunc)")
    reload_sshd(host, f"echo 'AllowTcpForwarding no' > {rule}")
    try:
        refused = converge("images", "--extra-vars", "images_way=registry")
        streamed = converge("images")
    finally:
        reload_sshd(host, f"rm {rule}")
    assert refused.returncode != 0
    assert "allow it (AllowTcpForwarding)" in " ".join(refused.stdout.split())
    assert streamed.returncode == 0, streamed.stdout
    assert "(stream)" in streamed.stdout
    (image,) = json.loads(host.check_output("docker image inspect airlift/app:1.0"))
    assert image["Id"] == APP["config_digest"]
    assert converge("service").returncode == 0
