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
  made:
    description: Whether a complete cluster is in O(staging), to be marked and put in its place.
    type: bool
    default: false
author: Airlift
"""

EXAMPLES = r"""
- name: Cluster
  postgres_cluster:
    home: /var/lib/airlift/postgres
    data: /var/lib/airlift/postgres/data
    staging: /var/lib/airlift/postgres/data.staging
    marker: airlift-cluster.json
    user: "999:999"
    image_source: registry
    major: "17"
    host: "{{ inventory_hostname }}"
"""

RETURN = r"""
due:
  description: Whether there is no cluster yet; what a killed run left of one is then removed.
  type: bool
  returned: always
"""

import contextlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402


class RefusedError(Exception):
    """The cluster does not belong to this release."""


def own(path: Path, user: str, mode: int, *, check: bool) -> bool:
    """Set a path's owner and mode; return whether they were different."""
    uid, gid = (int(part) for part in user.split(":"))
    status = path.lstat()
    if (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (uid, gid, mode):
        return False
    if not check:
        os.chown(path, uid, gid)
        path.chmod(mode)
    return True


def make_home(params: dict[str, Any], *, check: bool) -> bool:
    """Create the cluster's home directory; return whether that is a change."""
    home = Path(params["home"])
    if home.is_dir():
        return own(home, params["user"], 0o700, check=check)
    if not check:
        home.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        home.mkdir(mode=0o700)
        own(home, params["user"], 0o700, check=False)
    return True


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


def flush(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def place(module: AnsibleModule) -> None:
    """Mark the new cluster and rename it into place; both survive a power cut."""
    params = module.params
    data, staging = Path(params["data"]), Path(params["staging"])
    marker = staging / params["marker"]
    made = {"format": 1, "image_source": params["image_source"], "major": params["major"]}
    marker.write_text(json.dumps(made, indent=4) + "\n")
    own(marker, params["user"], 0o600, check=False)
    # Flush the whole file system: initdb wrote thousands of files.
    module.run_command(["sync", "--file-system", str(staging)], check_rc=True)
    if os.path.lexists(data):
        raise RefusedError(f"{data} on {params['host']} appeared meanwhile; nothing was replaced.")
    staging.rename(data)
    flush(data.parent)


def run(module: AnsibleModule) -> dict[str, Any]:
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


def main() -> None:
    """Run the module."""
    names = ("home", "data", "staging", "marker", "user", "image_source", "major", "host")
    paths = ("home", "data", "staging")
    module = AnsibleModule(
        argument_spec={
            **{
                name: {"type": "path" if name in paths else "str", "required": True}
                for name in names
            },
            "made": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        module.exit_json(**run(module))
    except (OSError, RefusedError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
