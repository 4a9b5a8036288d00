"""Render the local stack's configuration from the roles' templates and the image lock.

python -m scripts.stack_config [--check]

It writes stack/rendered/, and the images' digests into docker-compose.yml and .env.example. The
files are committed, so that `docker compose up` needs nothing else. --check only reports
differences.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bundle.builder.images import lockfile

ROOT = Path(__file__).resolve().parents[1]
RENDERED = ROOT / "stack" / "rendered"
PINNED = ("docker-compose.yml", ".env.example")
# The edge's agent writes this into each generation; the stack has only one generation.
GENERATION = (
    'map "" $airlift_generation { default "1"; }\nmap "" $airlift_colour { default "none"; }\n'
)


def rendered() -> dict[str, str]:
    """Return path below stack/rendered/: content."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "files.json"
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "stack/render.yml"]
        environment = {
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_FILTER_PLUGINS": str(ROOT / "roles/monitoring/filter_plugins"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_LOCAL_TEMP": folder,
            "ANSIBLE_REMOTE_TEMP": folder,
        }
        done = subprocess.run(
            [
                *command,
                *("-i", "localhost,"),
                *("-e", f"stack_output={output}"),
                *("-e", f"ansible_python_interpreter={sys.executable}"),
            ],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"stack/render.yml failed:\n{done.stdout}{done.stderr}")
        files: dict[str, str] = json.loads(output.read_text())
    files["nginx/generation.conf"] = GENERATION
    return files


def pinned(text: str) -> str:
    """Return a file's text with the tag and digest that the lock has for each image."""
    for pin in lockfile.load(ROOT / "bundle" / "images.lock.yml").images.values():
        if pin.upstream:
            image = re.escape(str(pin.upstream).partition("@")[0].rpartition(":")[0])
            text = re.sub(rf"{image}:[\w.-]+@sha256:[0-9a-f]{{64}}", str(pin.upstream), text)
    return text


def wanted() -> dict[Path, str]:
    """Return every generated file with its content."""
    files = {RENDERED / path: text for path, text in rendered().items()}
    for name in PINNED:
        files[ROOT / name] = pinned((ROOT / name).read_text())
    return files


def wrong(files: dict[Path, str]) -> list[str]:
    """Return the files that differ, are missing, or are no longer generated."""
    found = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    found += [path for path in RENDERED.rglob("*") if path.is_file() and path not in files]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def main() -> int:
    """Write the files, or report those that differ from the roles and the lock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    check: bool = parser.parse_args().check
    files = wanted()
    different = wrong(files)
    for name in different:
        print(f"{'differs' if check else 'written'}: {name}")
    if check:
        if different:
            print("Next: make stack-config", file=sys.stderr)
        return 1 if different else 0
    for path in RENDERED.rglob("*"):
        if path.is_file() and path not in files:
            path.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
