"""Delivery over a task's own SSH connection: by tunnel, or by stream without forwarding."""

import time
from pathlib import Path

import pytest

from roles.images.delivery import archive, ssh
from tests.unit.roles.conftest import plugin

deliver = plugin("images/action_plugins/images_deliver.py")


class FakeConnection:
    """The part of the SSH connection plugin that the client uses."""

    host = "10.0.0.1"
    transport = "ssh"
    become: object = None

    def __init__(self, program: str, password: str | None = None) -> None:
        self.options = {"ssh_args": "-o ControlPersist=5m", "ssh_executable": program}
        self.options["password"] = password or ""

    def get_option(self, name: str) -> str:
        return self.options[name]

    def set_option(self, name: str, value: str) -> None:
        self.options[name] = value

    def _build_command(self, program: str, _kind: str, host: str, command: str) -> list[bytes]:
        parts = [program, *self.options["ssh_args"].split(" -o "), host, command]
        return [part.encode() for part in parts]


def script(tmp_path: Path, text: str) -> str:
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return str(program)


def test_own_options_stand_first_and_do_not_stay() -> None:
    connection = FakeConnection("ssh")
    command = ssh.client(connection, "cat", "ControlPath=none")
    assert " ".join(command).index("ControlPath=none") < " ".join(command).index("ControlPersist")
    assert connection.options["ssh_args"] == "-o ControlPersist=5m"


def test_a_password_is_refused_in_words() -> None:
    with pytest.raises(ssh.StreamError, match="SSH key"):
        ssh.client(FakeConnection("ssh", password="x"), "cat")


def test_a_refused_port_is_told_from_a_lost_connection(tmp_path: Path) -> None:
    said = "Error: remote port forwarding failed for listen port 5479"
    refusing = FakeConnection(script(tmp_path, f"echo '{said}' >&2; exit 255"))
    with pytest.raises(ssh.ForwardingRefusedError), ssh.reverse_tunnel(refusing, 1, 2):
        pass
    lost = FakeConnection(script(tmp_path, "echo 'No route to host' >&2; exit 255"))
    with (
        pytest.raises(ssh.StreamError, match="No route to host"),
        ssh.reverse_tunnel(lost, 1, 2),
    ):
        pass


def test_a_tunnel_ends_with_its_block(tmp_path: Path) -> None:
    done = tmp_path / "done"
    standing = FakeConnection(script(tmp_path, f"trap 'touch {done}' EXIT TERM; cat"))
    with ssh.reverse_tunnel(standing, 1, 2):
        assert not done.exists()
    assert done.exists()


def write_some(sink: archive.Sink, times: int = 1) -> None:
    for _ in range(times):
        sink.write(b"x" * 65536)


def test_the_far_ends_words_are_kept(tmp_path: Path) -> None:
    refusing = FakeConnection(script(tmp_path, "echo 'no space left on device'; exit 1"))
    with pytest.raises(ssh.StreamError, match="no space left"):
        ssh.stream_to(refusing, "docker load", write_some, limit=60)


def test_bytes_are_counted(tmp_path: Path) -> None:
    taking = FakeConnection(script(tmp_path, "cat > /dev/null"))
    assert ssh.stream_to(taking, "docker load", write_some, limit=60) == 65536


def test_a_login_shell_may_say_something_first(tmp_path: Path) -> None:
    done = tmp_path / "done"
    talking = FakeConnection(script(tmp_path, f"trap 'touch {done}' EXIT TERM; echo Welcome; cat"))
    with ssh.reverse_tunnel(talking, 1, 2):
        assert not done.exists()
    assert done.exists()


@pytest.mark.parametrize("program", ["echo Welcome; exec sleep 60", "exec sleep 60"])
def test_a_tunnel_that_says_nothing_is_given_up(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "STANDING", 0.5)
    silent = FakeConnection(script(tmp_path, program))
    started = time.monotonic()
    with pytest.raises(ssh.StreamError, match="within") as caught, ssh.reverse_tunnel(silent, 1, 2):
        pass
    assert time.monotonic() - started < 10
    assert ("Welcome" in str(caught.value)) is ("Welcome" in program)


def test_a_client_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "ENDING", 0.5)
    deaf = "trap '' TERM; read line; echo $line; for n in $(seq 300); do sleep .1; done"
    started = time.monotonic()
    with ssh.reverse_tunnel(FakeConnection(script(tmp_path, deaf)), 1, 2):
        pass
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("transport", ["ssh", "local"])
def test_a_stream_ends_in_time(transport: str, tmp_path: Path) -> None:
    """Even if the other side keeps the pipe open and reads nothing."""
    hanging = FakeConnection(script(tmp_path, "exec sleep 60"))
    hanging.transport = transport
    started = time.monotonic()
    with pytest.raises(ssh.StreamError, match=r"did not end within 0.5 s; images_timeout"):
        ssh.stream_to(
            hanging,
            "sleep 60; true",
            lambda sink: write_some(sink, times=9),
            limit=0.5,
        )
    assert time.monotonic() - started < 10


def test_marks_of_becoming_root_are_no_words(tmp_path: Path) -> None:
    marked = "echo BECOME-SUCCESS-abc; echo 'no space left'; exit 1"
    with pytest.raises(ssh.StreamError) as caught:
        ssh.stream_to(FakeConnection(script(tmp_path, marked)), "x", write_some, limit=60)
    assert str(caught.value) == "no space left"


class AskingSudo:
    """A sudo that asks for a password."""

    def get_option(self, name: str) -> str:
        assert name == "become_pass"
        return "hunter2"


def test_a_link_is_measured_where_sudo_asks_for_a_password(tmp_path: Path) -> None:
    taking = FakeConnection(script(tmp_path, "cat > /dev/null"))
    taking.become = AskingSudo()
    with pytest.raises(ssh.StreamError, match="asks for a password"):
        ssh.stream_to(taking, "docker load", write_some, limit=60)
    assert ssh.stream_to(taking, "cat", write_some, limit=60, as_root=False) == 65536


def test_preflight_measures_it_without_root(tmp_path: Path) -> None:
    taking = FakeConnection(script(tmp_path, "cat > /dev/null"))
    taking.become = AskingSudo()
    action = object.__new__(deliver.ActionModule)
    action._connection, action._timeout = taking, 60
    assert action._seconds(deliver.SAMPLES[0]) > 0
