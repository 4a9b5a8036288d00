"""Install packages from a repository in the release.

No network is needed and the host's own package sources stay unchanged. No package is removed or
downgraded. apt or dnf checks each file against the repository's index, and the release's signed
manifest covers that index.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.host_tools import RefusedError, replace, run

# Not /tmp, which is often a small file system in memory.
STAGE = Path("/var/cache/airlift/packages")

# Packages must not start services before they are configured.
POLICY = Path("/usr/sbin/policy-rc.d")
DENY = "#!/bin/sh\n# Written by airlift while it installs packages.\nexit 101\n"

QUERIES = {
    "deb": ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n"],
    "rpm": ["rpm", "--query", "--queryformat=%{NAME} installed\\n"],
}


def system_of(systems: list[dict[str, Any]], release: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of this system's packages, and its entry in the release."""
    pairs = dict(line.split("=", 1) for line in release.read_text().splitlines() if "=" in line)
    name, version = (pairs.get(key, "").strip("\"'") for key in ("ID", "VERSION_ID"))
    for system in systems:
        if system["id"] == name and system["version"] in (version, version.split(".")[0]):
            return f"{name}-{system['version']}", system
    return f"{name}-{version}", {"name": pairs.get("PRETTY_NAME", name).strip("\"'")}


def missing_packages(kind: str, packages: Sequence[str]) -> list[str]:
    """Return the packages that are not installed."""
    # For a missing package rpm prints `package NAME is not installed`, which does not match.
    output = run(*QUERIES[kind], *packages, LC_ALL="C.UTF-8").stdout if packages else ""
    lines = [line.split() for line in output.splitlines()]
    installed = {line[0] for line in lines if line[1:] == ["installed"]}
    return [package for package in packages if package not in installed]


def outdated_packages(kind: str, offered: Mapping[str, str]) -> list[str]:
    """Return the installed packages of which the repository has a newer version."""
    if kind != "deb" or not offered:
        return []
    form = "--showformat=${Package} ${db:Status-Status} ${Version}\\n"
    output = run("dpkg-query", "--show", form, *offered, LC_ALL="C.UTF-8").stdout
    there = [line.split() for line in output.splitlines()]
    return sorted(
        {
            line[0]
            for line in there
            if line[1:2] == ["installed"]
            and run("dpkg", "--compare-versions", line[2], "lt", offered[line[0]]).returncode == 0
        }
    )


def stage(owner: str) -> None:
    """Create the directory into which the login user copies a repository."""
    shutil.rmtree(STAGE, ignore_errors=True)
    (STAGE / "repodata").mkdir(parents=True)
    user = pwd.getpwnam(owner)
    for folder in (STAGE, STAGE / "repodata"):
        folder.chmod(0o700)
        os.chown(folder, user.pw_uid, user.pw_gid)


def apt_options(repository: Path) -> list[str]:
    """Return options that make apt see this repository and nothing else."""
    work = repository / "apt"
    for name in ("lists/partial", "archives/partial"):
        (work / name).mkdir(parents=True, exist_ok=True)
    sources = work / "sources.list"
    # Trusted: the manifest has each file's hash, and the jump host checked its signature.
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
        # As with apt: the manifest has each file's hash, and its signature was checked.
        "--nogpgcheck",
        f"--setopt=cachedir={repository}/dnf",
        "--setopt=install_weak_deps=False",
    ]


def is_leftover() -> bool:
    """Return whether the policy file is ours, left by a run that a power cut interrupted."""
    try:
        return POLICY.read_text(encoding="utf-8") == DENY
    except (OSError, ValueError):
        return False


def install(kind: str, packages: Sequence[str]) -> None:
    """Install packages from the staged repository; fail with the package manager's message."""
    if kind == "rpm":
        # rpm starts no services, and without --allowerasing dnf removes nothing.
        commands = [["dnf", *dnf_options(STAGE), "install"]]
    else:
        get = ["apt-get", *apt_options(STAGE)]
        quiet = ["--yes", "--quiet", "--no-install-recommends", "--no-remove"]
        commands = [[*get, "update", "--quiet"], [*get, "install", *quiet]]
    owns_policy = kind == "deb" and (not POLICY.exists() or is_leftover())
    if owns_policy:
        replace(POLICY, DENY, 0o755)
    try:
        for command in commands:
            given = [*command, *packages] if "install" in command else command
            done = run(*given, seconds=None, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8")
            if done.returncode:
                message = (
                    f"{command[0]} could not install {' '.join(packages)} from the release's "
                    f"packages: {(done.stderr or done.stdout).strip()}"
                )
                raise RefusedError(message)
    finally:
        if owns_policy:
            POLICY.unlink(missing_ok=True)
    shutil.rmtree(STAGE, ignore_errors=True)
