"""Runs ssh-keygen, which makes and checks signatures."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from bundle.errors import AirliftError, Kind

# The first version with validity dates in the list of signers and with a time of verification.
MINIMUM = "8.8"
INSTALL = f"install OpenSSH {MINIMUM} or newer (package openssh-client)"
# How different getopt libraries report that -Y is unknown.
_NO_SIGNATURES = (b"unknown option", b"illegal option", b"invalid option")


def run(
    arguments: Sequence[str | bytes], message: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run ssh-keygen with a message on its standard input.

    An argument of bytes becomes a file with that content, in memory only. So ssh-keygen reads the
    bytes that were checked here, whatever happens to files or to /tmp.
    """
    descriptors: list[int] = []
    words = ["ssh-keygen"]
    try:
        for argument in arguments:
            if isinstance(argument, bytes):
                descriptors.append(_in_memory(argument))
                words.append(f"/proc/self/fd/{descriptors[-1]}")
            else:
                words.append(argument)
        done = subprocess.run(
            words,
            input=message,
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
            pass_fds=descriptors,
        )
    except FileNotFoundError as error:
        raise AirliftError(
            Kind.PYTHON, "ssh-keygen is not installed", where="PATH", fix=INSTALL
        ) from error
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if done.returncode != 0 and any(words in done.stderr for words in _NO_SIGNATURES):
        raise too_old("it cannot sign files (-Y)")
    return done


def too_old(what: str) -> AirliftError:
    """Return the error about an ssh-keygen that is too old."""
    return AirliftError(
        Kind.PYTHON,
        f"this machine's ssh-keygen is older than OpenSSH {MINIMUM}: {what}",
        where="ssh-keygen on PATH; `ssh -V` prints the version",
        fix=INSTALL,
    )


def first_line(text: bytes) -> str:
    """Return the first line of ssh-keygen's error message."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[0] if lines else "it gave no reason"


def _in_memory(data: bytes) -> int:
    descriptor = os.memfd_create("airlift")
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor
