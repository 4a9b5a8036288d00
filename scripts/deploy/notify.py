"""Report the result of a pipeline to a webhook: a JSON object with `text`, for chat systems."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from scripts.deploy import commands
from scripts.deploy.outcome import DeployError, Outcome
from scripts.deploy.settings import Settings, wrong

TRIES = 3
TIMEOUT = 10
#: Hosts whose address need not be https.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Results of jobs that are not failures.
WELL = ("success", "skipped")


def failed(what: str) -> DeployError:
    """Return the failure of a notification."""
    return DeployError(
        Outcome.NOTIFY, what, fix="check the address in DEPLOY_WEBHOOK_FILE and the receiver"
    )


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, because the address is a secret and so is its target."""

    def redirect_request(self, *_: Any) -> None:
        """Return None, so that the redirect itself is the answer."""


def message(settings: Settings) -> dict[str, Any]:
    """Return the message: one sentence for people, and the facts for machines."""
    try:
        results = json.loads(settings.values["DEPLOY_RESULTS"])
        # GitHub's `needs` has an object for each job.
        results = {
            str(job): str(one["result"] if isinstance(one, dict) else one)
            for job, one in results.items()
        }
    except (ValueError, AttributeError, KeyError) as error:
        raise wrong(
            f"DEPLOY_RESULTS is not JSON of jobs and results: {error!r}",
            """export DEPLOY_RESULTS='{"staging": "success"}'""",
        ) from error
    bad = [f"{job} {result}" for job, result in results.items() if result not in WELL]
    ran = [job for job, result in results.items() if result == "success"]
    release = f" of release {settings.release}" if settings.release else ""
    word = "failed" if bad else "succeeded"
    text = f"Deployment{release} {word}: {', '.join(bad or ran) or 'nothing ran'}"
    link = settings.values.get("DEPLOY_LINK", "")
    return {
        "text": f"{text} {link}".rstrip(),
        "status": word,
        "release": settings.release,
        "results": results,
        "link": link,
    }


def address(settings: Settings) -> str:
    """Return the secret address for notifications; empty if there is none."""
    path = settings.file("DEPLOY_WEBHOOK_FILE")
    if path is None:
        return ""
    try:
        found = path.read_text().strip()
    except OSError as error:
        raise wrong(f"cannot read {path}: {error.strerror}", f"ls -l {path}") from error
    parts = urllib.parse.urlsplit(found)
    if found and parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise wrong(f"the address in {path} is not https", "ask its receiver for an https address")
    return found


def notify(settings: Settings) -> None:
    """Send the message; without an address, print that and succeed."""
    body = message(settings)
    commands.say(body["text"])
    target = address(settings)
    if not target:
        commands.say("no webhook is set (DEPLOY_WEBHOOK_FILE): no notification is sent")
        return
    request = urllib.request.Request(  # noqa: S310 - its scheme was checked
        target, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(Stay())
    # Errors of libraries are not printed, because they may contain the secret address.
    host = urllib.parse.urlsplit(target).hostname
    why = ""
    for attempt in range(TRIES):
        time.sleep(attempt)
        try:
            with opener.open(request, timeout=TIMEOUT) as answer:
                commands.say(f"{host} was notified ({answer.status})")
                return
        except urllib.error.HTTPError as error:
            why = f"answered {error.code}"
            if error.code < 500 and error.code != 429:
                break
        except OSError as error:
            reason = getattr(error, "reason", error)
            why = f"does not answer ({type(reason).__name__})"
    raise failed(f"{host} {why}")
