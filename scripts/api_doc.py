"""Write each endpoint's section of docs/API.md from the service's own OpenAPI document.

``python scripts/api_doc.py`` rewrites the part between the two markers; ``--check`` only says
whether it is current (exit code 1 if not). Requests and answers are those of
``app/http/examples.py``; a test sends each to a running service.
"""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.http.examples import EXAMPLES, Example  # noqa: E402 - after the path
from app.main import create_app  # noqa: E402
from app.settings import Settings  # noqa: E402
from scripts.page_parts import between, rewrite  # noqa: E402

DOCUMENT = ROOT / "docs" / "API.md"
BEGIN = "<!-- endpoints: made by scripts/api_doc.py from the service's OpenAPI document -->"
END = "<!-- end of endpoints -->"


def command(method: str, path: str, example: Example, *, guarded: bool) -> str:
    """Return the command of an example; $URL, $KEY, $JOB, $WAITING must be set."""
    url = f'"$URL{path.replace("{job_id}", f"${example.job}")}{example.query}"'
    words = ["curl", "-sS", url]
    if method != ("get" if example.body is None else "post"):
        words += ["-X", method.upper()]
    if guarded:
        words += ["-H", '"X-API-Key: $KEY"']
    for name, value in example.headers.items():
        words += ["-H", f'"{name}: {value}"']
    line = " ".join(words)
    if example.body is None:
        return line
    body = shlex.quote(json.dumps(example.body))
    return f'{line} \\\n  -H "Content-Type: application/json" -d {body}'


def answer(example: Example) -> str:
    """Return an example's answer as a fenced block."""
    if isinstance(example.answer, str):
        return f"```text\n{example.answer}…\n```"
    return f"```json\n{json.dumps(example.answer, indent=2)}\n```"


def sentences(text: str) -> list[str]:
    """Return a description as the pages have prose: one sentence per line."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`])", " ".join(text.split()))


def shared(document: dict[str, Any]) -> dict[str, str]:
    """Return the answers that endpoints have in common: status and meaning."""
    texts = {
        f"#/components/responses/{name}": found["description"]
        for name, found in document["components"]["responses"].items()
    }
    return {
        status: texts[found["$ref"]]
        for methods in document["paths"].values()
        for operation in methods.values()
        for status, found in operation["responses"].items()
        if "$ref" in found
    }


def own_answers(operation: dict[str, Any], common: dict[str, str]) -> list[str]:
    """Return what statuses mean at this endpoint, where that is not what they mean at others."""
    usual = {"Successful Response", "Validation Error", *common.values()}
    return [
        f"- {status}: {found['description']}."
        for status, found in sorted(operation["responses"].items())
        if found.get("description", "Successful Response") not in usual
    ]


def section(method: str, path: str, operation: dict[str, Any], common: dict[str, str]) -> str:
    """Return the section of one endpoint."""
    scope: list[str] = operation["security"][0]["ApiKey"] if "security" in operation else []
    lines = [
        f"### `{method.upper()} {path}`",
        "",
        f"{operation['summary']}.",
        *sentences(operation.get("description", "")),
        "",
        f"Scope: {'`' + scope[0] + '`' if scope else 'none, open to everybody'}.",
        f"Answers: {', '.join(sorted(operation['responses']))}.",
    ]
    for found in (
        own_answers(operation, common),
        [
            f"- `{parameter['name']}` ({parameter['in']}): {parameter['description']}"
            for parameter in operation.get("parameters", ())
            if parameter.get("description")
        ],
    ):
        lines += ["", *found] if found else []
    for example in EXAMPLES.get((method, path), ()):
        shown = command(method, path, example, guarded=bool(scope))
        lines += ["", f"```sh\n{shown}\n```", "", f"{example.status}:", "", answer(example)]
    return "\n".join(lines)


def endpoints(document: dict[str, Any]) -> str:
    """Return the sections of every endpoint, grouped by tag in the document's order."""
    common = shared(document)
    groups: dict[str, list[str]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append(section(method, path, operation, common))
    texts = {tag["name"]: tag["description"] for tag in document["tags"]}
    rows = "".join(f"| {status} | {text} |\n" for status, text in sorted(common.items()))
    table = f"## Shared answers\n\n| Status | Meaning |\n|---|---|\n{rows}"
    return "\n\n".join(
        [
            table.rstrip(),
            *(
                f"## {name.capitalize()}\n\n{texts[name]}\n\n" + "\n\n".join(sections)
                for name, sections in groups.items()
            ),
        ]
    )


def render(document: str, openapi: dict[str, Any]) -> str:
    """Return ``document`` with the part between the markers generated again."""
    return between(document, BEGIN, END, f"\n{endpoints(openapi)}\n")


def main() -> int:
    """Rewrite the document, or compare it with ``--check``; return the exit code."""
    return rewrite(DOCUMENT, lambda document: render(document, create_app(Settings()).openapi()))


if __name__ == "__main__":
    sys.exit(main())
