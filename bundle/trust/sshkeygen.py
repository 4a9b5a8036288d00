"""Runs ssh-keygen, which makes signatures and judges them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from bundle.errors import AirliftError, Kind

# The first with dates of validity in the list of signers and a time of verification.
MINIMUM = "8.8"
INSTALL = f"install OpenSSH {MINIMUM} or newer (package openssh-client)"
# How programs of other systems' getopt say that they do not know -Y.
_NO_SIGNATURES = (b"unknown option", b"illegal option", b"invalid option")


def run(
    arguments: Sequence[str | bytes], message: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run it with a message on its standard input.

    An argument of bytes stands for a file with that content. It is in memory only: no full,
    read-only or watched /tmp comes between what was checked here and what ssh-keygen reads.
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
            Kind.PYTHON, "ssh-keygen is not on this machine", where="PATH", fix=INSTALL
        ) from error
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if done.returncode != 0 and any(words in done.stderr for words in _NO_SIGNATURES):
        raise too_old("it knows no signatures of files (-Y)")
    return done


def too_old(what: str) -> AirliftError:
    """The refusal to work with this ssh-keygen."""
    return AirliftError(
        Kind.PYTHON,
        f"this machine's ssh-keygen is older than OpenSSH {MINIMUM}: {what}",
        where="ssh-keygen on PATH; `ssh -V` prints the version",
        fix=INSTALL,
    )


def first_line(text: bytes) -> str:
    """The reason that it gave."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[0] if lines else "it gave no reason"


def _in_memory(data: bytes) -> int:
    descriptor = os.memfd_create("airlift")
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor
