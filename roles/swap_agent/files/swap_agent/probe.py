"""One readiness check of a replica, on a connection of its own."""

from __future__ import annotations

import asyncio
import json
import os

#: No answer by then counts as a failure, unless an earlier check was answered meanwhile. It is so
#: short that a frozen host, checked every second, has failed three times after 3.5 s at most.
PATIENCE = 0.5
#: A late answer is accepted until then: 200 is a success however slow the line is.
LIFETIME = 10.0
_BODY = 8192
_WORDS = 160


async def ask(address: str) -> str:
    """Return an empty text if the replica is ready, else the reason in a few printable words."""
    why = await _ask(address)
    return "".join(char if char.isprintable() else "?" for char in why)


async def _ask(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else str(error)
    try:
        request = f"GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        status = (await reader.readline()).split()
        if len(status) < 2 or not status[0].startswith(b"HTTP/"):
            return "the connection ended without an answer"
        if status[1] == b"200":
            return ""
        return f"HTTP {status[1].decode('ascii', 'replace')}{await _reasons(reader)}"[:_WORDS]
    except OSError as error:
        return f"the connection broke: {error.strerror or error}"
    except ValueError:
        return "the answer is not HTTP"
    finally:
        writer.close()


async def _reasons(reader: asyncio.StreamReader) -> str:
    """Return the failed checks in the service's answer."""
    answer = b""
    while len(answer) < _BODY and (more := await reader.read(_BODY)):
        answer += more
    try:
        checks = json.loads(answer.partition(b"\r\n\r\n")[2])["checks"]
        wrong = [f"{name}: {said}" for name, said in checks.items() if said != "ok"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return f", {'; '.join(wrong)}" if wrong else ""
