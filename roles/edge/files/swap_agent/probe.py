"""One question to a replica, on a connection of its own: is it ready?"""

from __future__ import annotations

import asyncio
import json
import os

#: An answer that has not come by then counts as a failure, if nothing else was answered meanwhile.
#: So short, because that is silence as such: asked each second, a host that froze is known to have
#: failed three times 3.5 s later at most.
PATIENCE = 0.5
#: Until then a late answer is waited for: 200 is a success however slow the line is.
LIFETIME = 10.0
_BODY = 8192
_WORDS = 160


async def ask(address: str) -> str:
    """Return nothing if the replica is ready, else why not, in a few words that can be printed."""
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
        return "the answer is no HTTP"
    finally:
        writer.close()


async def _reasons(reader: asyncio.StreamReader) -> str:
    """Return which checks did not hold, as the service's answer tells."""
    answer = b""
    while len(answer) < _BODY and (more := await reader.read(_BODY)):
        answer += more
    try:
        checks = json.loads(answer.partition(b"\r\n\r\n")[2])["checks"]
        wrong = [f"{name}: {said}" for name, said in checks.items() if said != "ok"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return f", {'; '.join(wrong)}" if wrong else ""
