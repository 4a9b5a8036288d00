"""Modes are set explicitly, because sudo and logins of a client may have the umask 0077."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.roles.conftest import ROLES, run_with_umask
from tests.unit.roles.test_secret_tasks import tasks_of

#: Modules of collections that create files, on hosts or on the jump host.
CREATE = {
    "ansible.builtin.copy",
    "ansible.builtin.file",
    "ansible.builtin.template",
    "community.crypto.openssl_privatekey",
    "community.crypto.x509_certificate",
}
#: Modules that create none. Add each newly used module to one of these lists.
CREATE_NONE = {
    "ansible.builtin.assert",
    # Programs that only query, or the swap agent, which sets its own umask.
    "ansible.builtin.command",
    "ansible.builtin.debug",
    "ansible.builtin.fail",
    "ansible.builtin.import_role",
    "ansible.builtin.import_tasks",
    "ansible.builtin.include_role",
    "ansible.builtin.include_tasks",
    "ansible.builtin.include_vars",
    "ansible.builtin.meta",
    "ansible.builtin.pause",
    "ansible.builtin.ping",
    "ansible.builtin.set_fact",
    "ansible.builtin.slurp",
    "ansible.builtin.wait_for_connection",
    "community.crypto.openssl_csr_pipe",
    "community.docker.docker_container_info",
    "community.docker.docker_image_info",
}
TASKS = [
    (path.relative_to(ROLES), task)
    for path in sorted(ROLES.glob("*/tasks/*.yml"))
    for task in tasks_of(yaml.safe_load(path.read_text()) or [])
]
MODULES = sorted(ROLES.glob("*/library/*.py"))
UTILS = {path.stem: path for path in ROLES.glob("*/module_utils/*.py")}
WRITING = {"mkdir", "makedirs", "touch", "write_text", "write_bytes", "replace", "copytree"}


def test_every_task_that_creates_a_file_says_its_mode() -> None:
    used = {
        (path, name): task[name] for path, task in TASKS for name in task if name.count(".") == 2
    }
    assert {name for _, name in used} - CREATE - CREATE_NONE == set(), "does it create files?"
    lacking = [
        f"{path}: {name}"
        for (path, name), arguments in used.items()
        if name in CREATE and "mode" not in arguments
    ]
    assert lacking == []


def calls(path: Path) -> set[str]:
    """Return the names of functions that a file calls; of methods only those of a path."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
        # `replace` of a string writes nothing.
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found.update({node.func.attr} - {"replace"})
    return found


def imported(path: Path) -> set[Path]:
    """Return a module and the shared modules that it imports."""
    reached, due = {path}, [path]
    while due:
        for node in ast.walk(ast.parse(due.pop().read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            names = [(node.module or "").rpartition(".")[2], *(one.name for one in node.names)]
            new = {UTILS[name] for name in names if name in UTILS} - reached
            reached |= new
            due += new
    # Exclude host_tools, which defines the functions that write: their callers count.
    return reached - {UTILS["host_tools"]}


def begins_with_answer(module: Path) -> bool:
    """Return whether a module has the usual beginning and end."""
    return "from ansible.module_utils.host_module import answer" in module.read_text()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_every_module_that_writes_sets_its_umask(module: Path) -> None:
    writes = {name for path in imported(module) for name in calls(path)} & WRITING
    sets = module.read_text() + UTILS["host_module"].read_text() * begins_with_answer(module)
    assert not writes or "os.umask(0o022)" in sets, writes


@pytest.mark.slow
def test_a_folder_is_for_all_though_the_caller_is_not(tmp_path: Path) -> None:
    """sudo with the umask 0077 starts it like this."""
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/x").write_text("0")
    given: dict[str, Any] = {"settings": {"x": 1}, "root": str(tmp_path / "sys")}
    given["path"] = str(tmp_path / "etc/sysctl.d/airlift.conf")
    run_with_umask("kernel_settings", given)
    paths = ("etc", "etc/sysctl.d", "etc/sysctl.d/airlift.conf")
    assert [(tmp_path / path).stat().st_mode & 0o777 for path in paths] == [0o755, 0o755, 0o644]
