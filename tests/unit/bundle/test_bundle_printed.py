"""A test runs each fix and next command that `bundle/` can print."""

from __future__ import annotations

import re

from bundle.cli import catalog
from tests.unit.bundle import (
    test_bundle_home,
    test_bundle_printed_carry,
    test_bundle_printed_site,
    test_bundle_unpacked,
)
from tests.unit.bundle.bundlekit import TREE
from tests.unit.bundle.printed import RUN, pattern, templates

assert test_bundle_home
assert test_bundle_printed_carry
assert test_bundle_printed_site
assert test_bundle_unpacked

#: Templates that other tests run.
ELSEWHERE = {
    "make setup, then .venv/bin/python -m bundle completion {}": "test_bundle_completion.py",
    "PYTHONPATH={} {} -m bundle": "test_bundle_completion.py",
    "PYTHONPATH={} {} -m bundle $argv": "test_bundle_completion.py",
    'airlift-bundle() { PYTHONPATH={} {} -m bundle "$@"; }': "test_bundle_completion.py",
    "$zsh_eval_context[-1] == eval": "test_bundle_completion.py",
    "$zsh_eval_context[-1] == (eval|file)": "test_bundle_completion.py",
    **dict.fromkeys(
        (
            "add --passphrase-file FILE, or --passphrase-file - to read the standard input",
            "compare both (`state show`); to put the saved state in the place of what is here, add "
            "--replace: replaced folders are kept in {}",
            "-i {}",
            "./venv/bin/python -m bundle import /media/usb/airlift-{}-*.tar",
            "./venv/bin/ansible-playbook -i {} playbooks/status.yml",
        ),
        "test_bundle_state.py",
    ),
}
#: Commands named in sentences for other people or later: nothing to run now.
SENTENCES = {
    "done; for import also: it was imported before",
    "make one with `openssl rand -hex 16`, and keep it in the client's safe",
    "name a file that `state save` wrote",
    "not given back, because this user may not or they do not exist here: {}; to change owners: "
    "sudo chown -R USER:GROUP {}",
    "not in the file: import their bundles",
    "omit it, or use `state {}`",
    "run the command with the venv of a release: "
    "/opt/airlift/current/venv/bin/python -m bundle state …",
    "wait until no playbook or import is in progress, then run the same command again",
    "python -m bundle",
    "python3 -I verify.pyz",
    "ask the vendor for a bundle that was made by `python -m bundle build`",
    "use only a bundle that was signed by `python -m bundle build`",
}


def test_every_printed_command_has_a_state_that_runs_it() -> None:
    known = RUN | set(ELSEWHERE) | SENTENCES
    new = {text: place for text, place in templates().items() if text not in known}
    assert not new, "add a state that prints it and runs it"


def test_every_state_is_of_something_that_is_printed() -> None:
    assert not (RUN | set(ELSEWHERE) | SENTENCES) - set(templates())


def test_what_is_named_in_sentences_exists() -> None:
    for text in SENTENCES:
        for name in re.findall(r"-m bundle (\w+)", text):
            assert name in catalog.COMMANDS
    for name in ELSEWHERE.values():
        assert (TREE / "tests" / "unit" / "bundle" / name).is_file()
    assert re.search(r"^setup:", (TREE / "Makefile").read_text(), re.MULTILINE)


def test_a_template_is_of_its_text_only() -> None:
    assert pattern("rm -r {}, and").search("find it; rm -r /a b, and import")
    assert not pattern("add --who NAME").search("add --whom NAME")
