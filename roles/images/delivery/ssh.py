"""Using a task's own SSH connection for more than running modules.

Everything that the inventory says about reaching a host (keys, users, jump hosts, options) stays in
force, because the connection plugin builds the commands.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from roles.images.delivery.archive import Sink

READY = b"ready\n"
# Words of the SSH client when the other side does not forward. OpenSSH's are not translated.
REFUSALS = ("remote port forwarding failed", "administratively prohibited", "forwarding disabled")


class StreamError(Exception):
    """A stream to a host that was not taken, in words for the operator."""


class ForwardingRefusedError(Exception):
    """The host's sshd, or something on the way, does not forward ports."""


def client(connection: Any, command: str, *options: str) -> list[str]:
    """Return the command line of an SSH client that runs a command on the connection's host.

    Built as the plugin builds its own clients; there is no public way to ask for one.
    """
    if connection.get_option("password"):
        message = "an SSH key is needed to bring images to a host: a password is not enough"
        raise StreamError(message)
    own = [part for option in options for part in ("-o", option)]
    before = connection.get_option("ssh_args")
    # OpenSSH takes the first value that it reads, so ours stand in front of the inventory's.
    connection.set_option("ssh_args", " ".join([*own, before or ""]).strip())
    try:
        program = connection.get_option("ssh_executable")
        built = connection._build_command(program, "ssh", connection.host, command)
    finally:
        connection.set_option("ssh_args", before)
    return [os.fsdecode(part) for part in built]


@contextmanager
def reverse_tunnel(connection: Any, host_port: int, local_port: int) -> Iterator[None]:
    """Give the host's loopback a port that leads to one of the jump host.

    The tunnel has an SSH session of its own, whose remote command is `cat` with our pipe as its
    input: when this process ends, however it ends, the pipe closes and the session with it. So no
    tunnel outlives a killed controller. The echo of one line says that the tunnel stands.
    """
    arguments = client(
        connection,
        "cat",
        "ControlMaster=no",
        "ControlPath=none",
        "ControlPersist=no",
        "ExitOnForwardFailure=yes",
        f"RemoteForward=127.0.0.1:{host_port}\\ 127.0.0.1:{local_port}",
    )
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(READY)
                process.stdin.flush()
            if process.stdout.readline() != READY:
                process.wait()
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()
                if any(words in said.lower() for words in REFUSALS):
                    raise ForwardingRefusedError(said)
                message = f"no SSH tunnel to the host: {said}"
                raise StreamError(message)
            yield
        finally:
            # It would wait for idle connections of the engine; everything has been pulled by now.
            process.terminate()
            with suppress(BrokenPipeError):
                process.stdin.close()


def stream_to(connection: Any, command: str, write: Callable[[Sink], None]) -> int:
    """Run a command on the host with what `write` produces as its input; return the bytes sent."""
    if connection.become is not None:
        if connection.become.get_option("become_pass"):
            message = (
                "images cannot be streamed to a host whose sudo asks for a password: allow SSH "
                "forwarding there, or sudo without a password"
            )
            raise StreamError(message)
        command = connection.become.build_become_command(command, connection._shell)
    local = connection.transport == "local"
    arguments = ["/bin/sh", "-c", command] if local else client(connection, command)
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        counter = _Counter(process.stdin)
        # When the other end gives up, its own words say more than our broken pipe.
        with suppress(BrokenPipeError):
            write(counter)
        with suppress(BrokenPipeError):
            process.stdin.close()
        code = process.wait()
        if code != 0:
            output.seek(0)
            raise StreamError(output.read().decode(errors="replace").strip())
    return counter.written


class _Counter:
    """Counts what passes through."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.written = 0

    def write(self, data: bytes, /) -> int:
        """Pass on."""
        self.written += len(data)
        return self._stream.write(data)
