#!/usr/bin/python
"""Look for packages, or install them from a repository in a folder; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: offline_packages
short_description: Install packages from a repository carried by the release
description:
  - The action plugin of the same name copies the repository to the host, and only if a package
    is missing.
  - Works with no network and leaves the host's own package sources alone. Never removes or
    downgrades a package. What comes from the repository is checked by apt or dnf against the
    repository's index, which the release's signed manifest lists.
options:
  packages:
    description: Names of the packages that must be installed.
    type: list
    elements: str
    required: true
  repository:
    description: The repository; a folder of the release, and on the host where it was copied.
    type: path
    required: true
  format:
    description: What the host installs. C(rpm) was not tried on a host.
    type: str
    choices: [deb, rpm]
    default: deb
  state:
    description:
      - Internal. C(query) tells what is missing, C(stage) makes the directory,
        C(present) installs.
    type: str
    choices: [query, stage, present]
    default: present
  stage_owner:
    description: Internal. User who copies the repository to the host.
    type: str
    default: root
"""

EXAMPLES = r"""
- name: Engine
  offline_packages:
    packages: [docker.io, docker-cli]
    repository: "{{ site_release_dir }}/packages/debian-13"
"""

RETURN = r"""
missing:
  description: Packages that were missing.
  returned: always
  type: list
  elements: str
"""

import os  # noqa: E402
import pwd  # noqa: E402
import shutil  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

# Services that a package starts would come up before they are configured.
POLICY = Path("/usr/sbin/policy-rc.d")
DENY = "#!/bin/sh\n# Written by airlift while it installs packages.\nexit 101\n"


QUERIES = {
    "deb": ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n"],
    "rpm": ["rpm", "--query", "--queryformat=%{NAME} installed\\n"],
}


def missing_packages(module: AnsibleModule, packages: list[str]) -> list[str]:
    """Return those of the packages that are not installed."""
    # rpm says `package NAME is not installed`: three words more than what is asked for.
    _, output, _ = module.run_command(
        [*QUERIES[module.params["format"]], *packages], environ_update={"LC_ALL": "C.UTF-8"}
    )
    lines = [line.split() for line in output.splitlines()]
    installed = {line[0] for line in lines if line[1:] == ["installed"]}
    return [package for package in packages if package not in installed]


def apt_options(repository: Path) -> list[str]:
    """Return options that make apt see this repository and nothing else."""
    work = repository / "apt"
    for name in ("lists/partial", "archives/partial"):
        (work / name).mkdir(parents=True, exist_ok=True)
    sources = work / "sources.list"
    # Trusted: each file's hash is in the manifest, whose signature was checked on the jump host.
    sources.write_text(f"deb [trusted=yes] file:{repository} ./\n")
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": work / "lists",
        "Dir::Cache::archives": work / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "root",
        "APT::Get::AllowUnauthenticated": "false",
        "DPkg::Lock::Timeout": "120",
        "Dpkg::Use-Pty": "0",
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def dnf_options(repository: Path) -> list[str]:
    """Return options that make dnf see this repository and nothing else."""
    return [
        "--assumeyes",
        "--quiet",
        "--disablerepo=*",
        f"--repofrompath=airlift,file://{repository}",
        # As with apt: each file's hash is in the manifest, whose signature was checked.
        "--nogpgcheck",
        f"--setopt=cachedir={repository}/dnf",
        "--setopt=install_weak_deps=False",
    ]


def is_leftover() -> bool:
    """Say whether the policy is ours, left by a run that a power cut ended."""
    try:
        return POLICY.read_text(encoding="utf-8") == DENY
    except (OSError, ValueError):
        return False


def install(module: AnsibleModule, packages: list[str], repository: Path) -> None:
    """Install packages; fail with the package manager's own words."""
    if module.params["format"] == "rpm":
        # No service is started by an rpm, and without --allowerasing dnf removes nothing.
        _run(module, ["dnf", *dnf_options(repository), "install", *packages], packages)
        return
    options = apt_options(repository)
    owns_policy = not POLICY.exists() or is_leftover()
    if owns_policy:
        POLICY.write_text(DENY)
        POLICY.chmod(0o755)
    try:
        for command in (
            ["update", "--quiet"],
            [
                "install",
                "--yes",
                "--quiet",
                "--no-install-recommends",
                "--no-remove",
                *packages,
            ],
        ):
            _run(module, ["apt-get", *options, *command], packages)
    finally:
        if owns_policy:
            POLICY.unlink(missing_ok=True)


def _run(module: AnsibleModule, command: list[str], packages: list[str]) -> None:
    environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    code, output, errors = module.run_command(command, environ_update=environment)
    if code != 0:
        module.fail_json(
            msg=f"{command[0]} could not install {' '.join(packages)} from the release's packages: "
            + (errors or output).strip(),
            stdout=output,
            stderr=errors,
        )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "repository": {"type": "path", "required": True},
            "format": {"type": "str", "choices": list(QUERIES), "default": "deb"},
            "state": {
                "type": "str",
                "choices": ["query", "stage", "present"],
                "default": "present",
            },
            "stage_owner": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    packages, repository = module.params["packages"], Path(module.params["repository"])
    missing = missing_packages(module, packages)
    if not missing and is_leftover():
        # Nothing installs at the moment, and it would keep every service of the host from starting.
        if not module.check_mode:
            POLICY.unlink()
        module.exit_json(changed=True, missing=missing)
    if module.params["state"] == "query" or not missing:
        module.exit_json(changed=False, missing=missing)
    if module.check_mode:
        module.exit_json(changed=True, missing=missing)
    try:
        if module.params["state"] == "stage":
            shutil.rmtree(repository, ignore_errors=True)
            repository.mkdir(parents=True, mode=0o700)
            owner = pwd.getpwnam(module.params["stage_owner"])
            (repository / "repodata").mkdir()
            for folder in (repository, repository / "repodata"):
                os.chown(folder, owner.pw_uid, owner.pw_gid)
        else:
            install(module, missing, repository)
            shutil.rmtree(repository, ignore_errors=True)
    except OSError as error:
        module.fail_json(msg=str(error), missing=missing)
    module.exit_json(changed=True, missing=missing)


if __name__ == "__main__":
    main()
