"""Redis loads a new certificate and keeps its connections: a real server, the role's command."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

from tests.unit.roles.conftest import ROLES
from tests.unit.roles.enginekit import IMAGE, docker, require_image

pytestmark = [pytest.mark.docker, pytest.mark.slow]
VARIABLES = {
    "site_tls": True,
    "redis_settings": {},
    "redis_maxmemory": "32mb",
    "redis_app_password": "a" * 20,
    "redis_monitor_password": "m" * 20,
    "redis_reload_password": "r" * 20,
}


def rendered(name: str) -> str:
    """Return a template of the role as Ansible renders it."""
    templates = Environment(autoescape=False, trim_blocks=True)  # noqa: S701 - no HTML
    templates.filters["hash"] = lambda text, kind: hashlib.new(kind, text.encode()).hexdigest()
    return templates.from_string((ROLES / "redis/templates" / name).read_text()).render(VARIABLES)


def entry() -> dict[str, Any]:
    """Return how the role's container loads a change."""
    data = yaml.safe_load((ROLES / "redis/vars/main.yml").read_text())
    found: dict[str, Any] = data["redis_containers"][0]["reload"]
    return found


class Server:
    """A Redis with TLS, accounts and files as on a site's host."""

    def __init__(self, folder: Path) -> None:
        self.name = f"probe-{uuid.uuid4().hex[:8]}"
        self.secrets, conf = folder / "secrets", folder / "conf"
        self.secrets.mkdir()
        conf.mkdir()
        (conf / "redis.conf").write_text(rendered("redis.conf.j2"))
        (self.secrets / "users.acl").write_text(rendered("users.acl.j2"))
        (self.secrets / "reload.password").write_text(str(VARIABLES["redis_reload_password"]))
        self.issue("first")
        docker(
            *["run", "--detach", "--name", self.name, "--publish", "127.0.0.1::6379"],
            *["--tmpfs", "/data:mode=1777", "--read-only", "--user", "999:999"],
            *["--volume", f"{self.secrets}:/run/secrets:ro", "--volume", f"{conf}:/conf:ro"],
            *["--entrypoint", "redis-server", IMAGE, "/conf/redis.conf"],
        )
        self.address = docker("port", self.name, "6379").split()[0].rsplit(":", 1)

    def issue(self, name: str) -> None:
        """Write a certificate of this name to the server's files."""
        subprocess.run(
            [
                *["openssl", "req", "-x509", "-newkey", "ec", "-nodes"],
                *[
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-subj",
                    f"/CN={name}",
                    "-keyout",
                    "tls.key",
                    "-out",
                    "tls.crt",
                ],
            ],
            cwd=self.secrets,
            check=True,
            capture_output=True,
        )
        (self.secrets / "ca.pem").write_bytes((self.secrets / "tls.crt").read_bytes())
        for path in self.secrets.iterdir():
            os.chown(path, 999, 999)
            path.chmod(0o400)

    def read_again(self) -> subprocess.CompletedProcess[str]:
        """Run the role's command as the role does."""
        words = ["docker", "exec", "--user", "999:999", self.name, *entry()["command"]]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def connect(self) -> ssl.SSLSocket:
        """Open a connection with the monitoring account."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = socket.create_connection((self.address[0], int(self.address[1])), timeout=10)
        made = context.wrap_socket(plain)
        password = VARIABLES["redis_monitor_password"]
        assert self.says(made, f"AUTH airlift_monitor {password}") == "+OK"
        return made

    @staticmethod
    def says(connection: ssl.SSLSocket, words: str) -> str:
        connection.sendall(f"{words}\r\n".encode())
        return connection.recv(1000).decode().strip()


def served(connection: ssl.SSLSocket) -> bytes:
    """Return the certificate that the server presents to a new connection."""
    found = connection.getpeercert(binary_form=True)
    assert found is not None
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if os.geteuid() != 0:
        pytest.skip("the files belong to the container's user")
    require_image()
    made = Server(tmp_path)
    for _ in range(100):
        if "Ready to accept connections" in docker("logs", made.name):
            break
    yield made
    subprocess.run(["docker", "rm", "--force", made.name], check=False, capture_output=True)


def test_a_new_certificate_is_served_and_connections_stay(server: Server) -> None:
    before = server.connect()
    server.issue("second")
    assert served(server.connect()) == served(before)
    done = server.read_again()
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"second" in served(server.connect())
    assert server.says(before, "PING") == "+PONG"


def test_files_that_redis_cannot_use_are_an_error_and_the_old_ones_stay(server: Server) -> None:
    before = served(server.connect())
    (server.secrets / "tls.crt").chmod(0o600)
    (server.secrets / "tls.crt").write_text("no certificate\n")
    done = server.read_again()
    assert done.returncode != 0
    assert "CONFIG SET failed" in done.stdout + done.stderr
    assert served(server.connect()) == before


def test_the_account_may_do_nothing_else(server: Server) -> None:
    words = ["docker", "exec", "--env", "REDISCLI_AUTH", server.name, "redis-cli", "-e", "--tls"]
    words += ["--insecure", "--user", "airlift_reload"]
    environment = {**os.environ, "REDISCLI_AUTH": str(VARIABLES["redis_reload_password"])}

    def ask(*command: str) -> str:
        done = subprocess.run(
            [*words, *command], capture_output=True, text=True, check=False, env=environment
        )
        return done.stdout + done.stderr

    assert "PONG" in ask("ping")
    for command in (("get", "x"), ("config", "get", "*"), ("acl", "list"), ("shutdown",)):
        assert "NOPERM" in ask(*command), command
    assert "protected config" in ask("config", "set", "dir", "/tmp")  # noqa: S108


def test_only_the_certificates_files_are_read_again() -> None:
    site = yaml.safe_load((ROLES / "site/vars/main.yml").read_text())
    assert entry()["files"] == "{{ site_tls_files.keys() | list }}"
    for name in site["site_tls_files"]:
        assert f"/run/secrets/{name}" in entry()["command"][-1]
