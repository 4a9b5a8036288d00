"""Write a service's files on a host: exact, atomic, flushed, with a keyed fingerprint.

The container gets the fingerprint as a label, so that a container is replaced after a change of its
files, even if the run that changed them was killed. It is keyed with a random value that never
leaves the host: a reader of the label cannot use it to test a guessed secret.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets as random_source
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils import host_tools
from ansible.module_utils.host_tools import RefusedError, flush_directory, replace, rights_differ

#: What a caller need not give. Without `fingerprint_key`, the file with the key, there is no
#: fingerprint. `copies` maps file names to paths on the host; `%s` in the command `validate` stands
#: for the staged directory; a running service reads the files in `reread` again by itself.
UNSET: dict[str, Any] = {
    **{name: {} for name in ("modes", "files", "secrets", "copies")},
    "fingerprint_key": None,
    "validate": [],
    "reread": (),
}


class Rights:
    """Owner and modes of all written files."""

    def __init__(
        self, owner: str, mode: str, directory_mode: str, modes: dict[str, str] | None = None
    ) -> None:
        self.owner = host_tools.ids(owner)
        self.mode = int(mode, 8)
        self.directory_mode = int(directory_mode, 8)
        self.modes = {name: int(other, 8) for name, other in (modes or {}).items()}

    def mode_of(self, name: str) -> int:
        """Return the mode of one file."""
        return self.modes.get(name, self.mode)


def wanted_files(params: dict[str, Any]) -> dict[str, bytes]:
    """Return relative path: content of the wanted files."""
    wanted: dict[str, bytes] = {}
    for source in ("files", "secrets"):
        for name, content in params[source].items():
            text = content if isinstance(content, str) else str(content)
            wanted[str(name)] = text.encode()
    for name, path in params["copies"].items():
        wanted[str(name)] = Path(path).read_bytes()
    for name in wanted:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts:
            message = f"{name}: a path inside the directory is needed"
            raise ValueError(message)
    return wanted


def present_files(directory: Path) -> dict[str, bytes]:
    """Return relative path: content of the existing files."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def make_directories(top: Path, name: str, rights: Rights) -> None:
    """Create the directory and the file's parents with the right owner and mode."""
    wanted = [top]
    for part in Path(name).parent.parts:
        wanted.append(wanted[-1] / part)
    top.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for directory in wanted:
        directory.mkdir(exist_ok=True)
        if rights_differ(directory, rights.owner, rights.directory_mode):
            host_tools.own(directory, rights.owner, rights.directory_mode)


def write_file(top: Path, name: str, content: bytes, rights: Rights) -> None:
    """Replace one file atomically; it never exists with a wrong owner or mode."""
    make_directories(top, name, rights)
    replace(top / name, content, rights.mode_of(name), rights.owner)


def fingerprint_key(path: Path, *, create: bool) -> bytes:
    """Return the host's random key; create it if it is missing."""
    if path.exists():
        return path.read_bytes()
    key = random_source.token_bytes(32)
    if create:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_file(path.parent, path.name, key, Rights("0:0", "0400", "0755"))
        flush_directory(path.parent)
    return key


def fingerprint(key: bytes, wanted: dict[str, bytes], rights: Rights) -> str:
    """Return a keyed digest over names, rights and contents."""
    digest = hmac.new(key, digestmod=hashlib.sha256)
    digest.update("{}:{}:{:o}".format(*rights.owner, rights.mode).encode())
    for name in sorted(wanted):
        digest.update(b"\0" + name.encode() + b"\0" + hashlib.sha256(wanted[name]).digest())
        if name in rights.modes:
            digest.update(f"{rights.modes[name]:o}".encode())
    return digest.hexdigest()[:32]


def changes(
    directory: Path, present: dict[str, bytes], wanted: dict[str, bytes], rights: Rights
) -> tuple[set[str], set[str]]:
    """Return the files to write and the files to remove."""
    write = {
        name
        for name, content in wanted.items()
        if present.get(name) != content
        or rights_differ(directory / name, rights.owner, rights.mode_of(name))
    }
    return write, set(present) - set(wanted)


def judge(command: list[str], directory: Path, wanted: dict[str, bytes], rights: Rights) -> None:
    """Stage the files beside the directory and let the service's own program judge them."""
    staged = directory.with_name(f".{directory.name}.staged")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        for name, content in wanted.items():
            write_file(staged, name, content, rights)
        done = host_tools.run(*(part.replace("%s", str(staged)) for part in command), seconds=None)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()
        raise RefusedError(f"the new files are not valid and were not installed: {said}")


def readable(files: dict[str, bytes]) -> str:
    """Return the files as one text for --diff."""
    return "".join(
        f"--- {name}\n{content.decode(errors='replace').rstrip()}\n"
        for name, content in sorted(files.items())
    )


def run(given: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Do the work and return the result."""
    params = {**UNSET, **given}
    directory = Path(params["directory"])
    rights = Rights(params["owner"], params["mode"], params["directory_mode"], params["modes"])
    wanted = wanted_files(params)
    before = present_files(directory) if directory.is_dir() else {}
    write, remove = changes(directory, before, wanted, rights)
    own = rights.owner, rights.directory_mode
    changed = bool(write or remove or (directory.is_dir() and rights_differ(directory, *own)))
    result: dict[str, Any] = {"changed": changed, "changed_files": sorted(write | remove)}
    if params["fingerprint_key"]:
        key = fingerprint_key(Path(params["fingerprint_key"]), create=not check)
        result["fingerprint"] = fingerprint(key, wanted, rights)
        if params["reread"]:
            # Of what was there, and of what a running service does not read again by itself.
            result["fingerprint_before"] = fingerprint(key, before, rights)
            for name, files in (("fixed", wanted), ("before_fixed", before)):
                fixed = {one: files[one] for one in files if one not in params["reread"]}
                result[f"fingerprint_{name}"] = fingerprint(key, fixed, rights)
    if params["files"]:
        # Never what is secret, or copied: a private key may be among it.
        result["diff"] = {
            "before": readable({name: before[name] for name in params["files"] if name in before}),
            "after": readable({name: wanted[name] for name in params["files"]}),
        }
    if not changed or check:
        return result
    if write and params["validate"]:
        judge(params["validate"], directory, wanted, rights)
    for name in sorted(write):
        write_file(directory, name, wanted[name], rights)
    for name in remove:
        (directory / name).unlink()
    if directory.is_dir():
        make_directories(directory, "x", rights)
        for path in {directory, *((directory / name).parent for name in write)}:
            flush_directory(path)
    return result
