#!/usr/bin/python
"""Report whether a host has its Postgres cluster, or put a new one in place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_cluster
short_description: Check a Postgres cluster, or put a new one in place
description:
  - Makes the home of the cluster, and refuses a cluster that this release must not open.
  - A cluster is made beside its final place and then renamed, so that the final place never holds
    an incomplete one. After a killed run, repeat it.
  - The marker is inside the cluster. It names the image source and the major version that are
    allowed to open it.
options:
  home: {description: Folder that holds the cluster., type: path, required: true}
  data: {description: The cluster., type: path, required: true}
  staging: {description: Where a new one is made., type: path, required: true}
  marker: {description: Name of the marker in the cluster., type: str, required: true}
  user: {description: Numeric owner as C(uid:gid)., type: str, required: true}
  image_source: {description: Image source of this release., type: str, required: true}
  major: {description: Major version of this release., type: str, required: true}
  host: {description: Name of this host in messages., type: str, required: true}
  made: {type: bool, default: false,
    description: "Whether a complete cluster is in O(staging), to be marked and put in its place."}
"""

RETURN = r"""
due: {type: bool, returned: always,
  description: Whether there is no cluster yet; what a killed run left of one is then removed.}
"""

import contextlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.host_module import answer  # noqa: E402
from ansible.module_utils.host_tools import (  # noqa: E402
    RefusedError,
    flush_directory,
    ids,
    own,
    rights_differ,
)


def make_home(params: dict[str, Any], *, check: bool) -> bool:
    """Make the home of the cluster; return whether that is a change."""
    home, rights = Path(params["home"]), (ids(params["user"]), 0o700)
    due = not home.is_dir() or rights_differ(home, *rights)
    if due and not check:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        own(home, *rights)
    return due


def judge(params: dict[str, Any]) -> None:
    """Refuse a cluster that this release must not open."""
    host, source, major = params["host"], params["image_source"], params["major"]
    marker = Path(params["data"]) / params["marker"]
    try:
        made = json.loads(marker.read_text())
    except FileNotFoundError:
        raise RefusedError(
            f"{params['data']} on {host} holds something that Airlift did not make. Move it away, "
            "then run the same command again."
        ) from None
    except ValueError as error:
        raise RefusedError(
            f"{marker} on {host} is damaged ({error}), so it is unknown which images may open the "
            "cluster. Restore this file from a backup of the host."
        ) from None
    if made["major"] != major:
        raise RefusedError(
            f"The cluster on {host} is of Postgres {made['major']}, this release has Postgres "
            f"{major}. Nothing was changed.\n"
            f"Ask the vendor for a release with Postgres {made['major']}."
        )
    if made["image_source"] != source:
        raise RefusedError(
            f'The cluster on {host} was made with images of the source "{made["image_source"]}", '
            f'this release has images of the source\n"{source}": another C library could corrupt '
            f"its indexes. Use a bundle built with --source {made['image_source']}."
        )


def place(module: Any) -> None:
    """Mark the new cluster and rename it into its place; both survive a power loss."""
    params = module.params
    data, staging = Path(params["data"]), Path(params["staging"])
    marker = staging / params["marker"]
    made = {"format": 1, "image_source": params["image_source"], "major": params["major"]}
    marker.write_text(json.dumps(made, indent=4) + "\n")
    own(marker, ids(params["user"]), 0o600)
    # The whole file system: initdb wrote thousands of files.
    module.run_command(["sync", "--file-system", str(staging)], check_rc=True)
    if os.path.lexists(data):
        raise RefusedError(f"{data} on {params['host']} appeared meanwhile; nothing was replaced.")
    staging.rename(data)
    flush_directory(data.parent)


def run(module: Any) -> dict[str, Any]:
    """Do the work and return the result."""
    params, check = module.params, module.check_mode
    if params["made"]:
        place(module)
        return {"changed": True, "due": False}
    changed = make_home(params, check=check)
    due = not os.path.lexists(params["data"])
    if not due:
        judge(params)
    elif not check:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(params["staging"])
    return {"changed": changed or (due and check), "due": due}


PATHS = ("home", "data", "staging")
TEXTS = ("marker", "user", "image_source", "major", "host")
OPTIONS = {
    **{name: {"type": "path", "required": True} for name in PATHS},
    **{name: {"required": True} for name in TEXTS},
    "made": {"type": "bool", "default": False},
}

if __name__ == "__main__":
    answer(run, OPTIONS)
