"""Use a task's own SSH connection for tunnels and streams.

The connection plugin builds the commands, so all settings of the inventory for reaching a host
(keys, users, jump hosts, options) stay in force.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from roles.images.delivery.archive import Sink

# Seconds to wait for a tunnel, and for a client to end after a signal.
STANDING = 120.0
ENDING = 10.0
# Messages of the SSH client if the server does not forward. OpenSSH does not translate them.
REFUSALS = ("remote port forwarding failed", "administratively prohibited", "forwarding disabled")


class StreamError(Exception):
    """A host did not accept a stream; the message is for the operator."""


class ForwardingRefusedError(Exception):
    """The host's sshd, or a device in between, does not forward ports."""


def client(connection: Any, command: str, *options: str) -> list[str]:
    """Return the command line of an SSH client that runs a command on the connection's host.

    It is built like the plugin's own clients, for which there is no public interface.
    """
    if connection.get_option("password"):
        message = (
            "delivering images to a host needs an SSH key, a password is not enough: run "
            "ssh-copy-id for this host and remove ansible_password"
        )
        raise StreamError(message)
    own = [part for option in options for part in ("-o", option)]
    before = connection.get_option("ssh_args")
    # OpenSSH uses the first value that it reads, so our options come before the inventory's.
    connection.set_option("ssh_args", " ".join([*own, before or ""]).strip())
    try:
        program = connection.get_option("ssh_executable")
        built = connection._build_command(program, "ssh", connection.host, command)
    finally:
        connection.set_option("ssh_args", before)
    return [os.fsdecode(part) for part in built]


@contextmanager
def reverse_tunnel(connection: Any, host_port: int, local_port: int) -> Iterator[None]:
    """Connect a port of the host's loopback to a port of the jump host.

    The tunnel has its own SSH session, whose remote command is `cat` with our pipe as its input. If
    this process ends in any way, the pipe closes and the session ends, so no tunnel outlives a
    killed controller. An echoed token shows that the tunnel works; other lines come from login
    shells.
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
        assert process.stdin is not None  # noqa: S101 - pipes were requested
        assert process.stdout is not None  # noqa: S101
        try:
            token = secrets.token_hex(16).encode()
            with suppress(BrokenPipeError):
                process.stdin.write(token + b"\n")
                process.stdin.flush()
            printed, ended = _read_until(token, process.stdout.fileno())
            if token not in printed:
                _end(process, grace=ENDING if ended else 0)
                errors.seek(0)
                silent = f"nothing came back within {STANDING:g} s"
                raise _no_tunnel(errors.read(), printed, "the session ended" if ended else silent)
            yield
        finally:
            # ssh would wait for idle connections of the engine, but the pull is complete.
            _end(process)


def _read_until(token: bytes, source: int) -> tuple[bytes, bool]:
    """Return the output up to the token or the time limit, and whether the client ended."""
    printed, deadline = b"", time.monotonic() + STANDING
    while token not in printed:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([source], [], [], left)[0]:
            return printed, False
        piece = os.read(source, 65536)
        if not piece:
            return printed, True
        printed = (printed + piece)[-65536:]
    return printed, False


def _no_tunnel(errors: bytes, printed: bytes, reason: str) -> Exception:
    said = errors.decode(errors="replace").strip()
    if any(words in said.lower() for words in REFUSALS):
        return ForwardingRefusedError(said)
    message = f"no SSH tunnel to the host: {said or reason}"
    if other := printed.decode(errors="replace").strip():
        message += f"; the host printed: {other[-500:]}"
    return StreamError(message)


def _end(process: subprocess.Popen[bytes], grace: float = 0) -> None:
    """End a client in any state; `grace` is the time in seconds to let it end by itself."""
    if grace:
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    process.terminate()
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()


def stream_to(
    connection: Any,
    command: str,
    write: Callable[[Sink], None],
    *,
    limit: float,
    as_root: bool = True,
) -> int:
    """Run a command on the host with what `write` produces as its input; return the bytes sent.

    It ends within `limit` seconds in any case.
    """
    asked = command
    if as_root and connection.become is not None:
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
            # Killing only the shell would leave its child, which holds our pipe.
            start_new_session=local,
        ) as process,
        _killed_after(limit, process, group=local) as expired,
    ):
        assert process.stdin is not None  # noqa: S101 - a pipe was requested
        counter = _Counter(process.stdin)
        # If the other end stops, its error message says more than our broken pipe.
        with suppress(BrokenPipeError):
            write(counter)
        with suppress(BrokenPipeError):
            process.stdin.close()
        code = process.wait()
        if code != 0:
            if expired.is_set():
                message = f"{asked} did not end within {limit:g} s; images_timeout is the limit"
                raise StreamError(message)
            output.seek(0)
            raise StreamError(_words(output.read()))
    return counter.written


@contextmanager
def _killed_after(
    limit: float, process: subprocess.Popen[bytes], *, group: bool
) -> Iterator[threading.Event]:
    """Kill a process after a time limit; report whether that was done."""
    expired = threading.Event()

    def kill() -> None:
        expired.set()
        if not group:
            process.kill()
        elif process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, kill)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def _words(output: bytes) -> str:
    """Return a command's output without Ansible's markers."""
    lines = output.decode(errors="replace").splitlines()
    return "\n".join(line for line in lines if not line.startswith("BECOME-SUCCESS-")).strip()


class _Counter:
    """Counts the bytes that pass through."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.written = 0

    def write(self, data: bytes, /) -> int:
        """Pass bytes on and count them."""
        self.written += len(data)
        return self._stream.write(data)
