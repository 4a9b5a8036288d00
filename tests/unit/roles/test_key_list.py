"""The list of API keys in a site's files is edited without changing anything else."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.key.logic import listedit

NAME = "app_api_keys"
ZEROS = "0" * 64
SHA = f"key_sha256: '{ZEROS}'"
OLD = {"client": "old", "key_sha256": ZEROS}
NEW = {"client": "new", "key_sha256": "1" * 64, "scopes": ["predict"], "label": "night: run"}

#: Forms of a file; each lists only OLD, or nothing.
WITH_ONE = {
    "block": f"a: 1  # kept\n{NAME}:\n  # who\n  - client: old\n    {SHA}\n\n# b\nb: 2\n",
    "unindented": f"{NAME}:\n- client: old\n  {SHA}  # first\nb: 2\n",
    "one line each": f"{NAME}:\n  - {{client: old, {SHA}}}\n# the end",
    "flow": f"{NAME}: [{{client: old, {SHA}}}]  # one\nb: 2\n",
    "flow over lines": f"{NAME}: [\n  {{client: old, {SHA}}},\n]\nb: 2\n",
    "dash alone": f"{NAME}:\n  -\n    client: old\n    {SHA}\nb: 2\n",
    "last without newline": f"b: 2\n{NAME}:\n  - client: old\n    {SHA}",
    "document mark": f"---\n{NAME}:\n  - client: old\n    {SHA}\n...\n",
    "of an inventory": (
        f"all:\n  vars:\n    {NAME}:\n      - client: old\n        {SHA}\n    b: 2\n"
    ),
    "in flow": f"all: {{vars: {{{NAME}: [{{client: old, {SHA}}}], b: 2}}}}\n",
    "CRLF": f"a: 1\r\n{NAME}:\r\n  - client: old\r\n    {SHA}\r\nb: 2\r\n",
    "with a secret": (
        f"{NAME}:\n  - client: old\n    {SHA}\nb: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n"
    ),
}
EMPTY = {
    "none yet": "a: 1  # kept\n",
    "nothing at all": "",
    "empty": f"{NAME}: []   # who\n#  - {{client: sample}}\nb: 2\n",
    "null": f"{NAME}:\n# who\nb: 2\n",
    "tilde": f"a: 1\n{NAME}: ~\n",
    "in flow": f"all: {{vars: {{{NAME}: [], b: 2}}}}\n",
    "last": f"b: 2\n{NAME}: []",
}


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


def lists(text: str) -> list[Any]:
    return listedit.entries(text, NAME)


@pytest.mark.parametrize("text", WITH_ONE.values(), ids=WITH_ONE)
def test_an_entry_is_added_at_the_end(text: str) -> None:
    edited = listedit.add(text, NAME, NEW)
    assert lists(edited) == [OLD, NEW]
    assert comments(edited) == comments(text)
    assert [line for line in text.splitlines() if "client" not in line and line not in edited] == []
    assert ("\r\n" in edited) == ("\r\n" in text)
    assert edited.count("\n") == edited.count("\r\n") or "\r\n" not in text


@pytest.mark.parametrize("text", EMPTY.values(), ids=EMPTY)
def test_the_first_entry(text: str) -> None:
    edited = listedit.add(text, NAME, NEW)
    assert lists(edited) == [NEW]
    assert comments(edited) == comments(text)
    again = listedit.add(edited, NAME, OLD)
    assert lists(again) == [NEW, OLD]


@pytest.mark.parametrize("text", WITH_ONE.values(), ids=WITH_ONE)
def test_an_added_entry_is_removed_again(text: str) -> None:
    edited = listedit.add(text, NAME, NEW)
    assert lists(listedit.remove(edited, NAME, 1)) == [OLD]
    assert lists(listedit.remove(edited, NAME, 0)) == [NEW]
    if not text.endswith("0'") and "the end" not in text:
        assert listedit.remove(edited, NAME, 1) == text


@pytest.mark.parametrize("text", WITH_ONE.values(), ids=WITH_ONE)
def test_the_last_entry_leaves_an_empty_list(text: str) -> None:
    edited = listedit.remove(text, NAME, 0)
    assert lists(edited) == []
    assert lists(listedit.add(edited, NAME, NEW)) == [NEW]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f'{NAME}: "{{{{ other + more }}}}"\n', "line 1 is not a plain list"),
        (f"{NAME}: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n", "not a plain list"),
        (f"{NAME}: []\nb: {{{NAME}: []}}\n", "more than once, in lines 1 and 2"),
        (f"a: &keys [1]\n{NAME}: *keys\n", "cannot be changed safely"),
        ("- 1\n", "does not hold settings"),
        ("a: [\n", "it is not YAML"),
    ],
)
def test_what_cannot_be_changed_safely_is_refused(text: str, reason: str) -> None:
    with pytest.raises(listedit.EditError, match=reason):
        listedit.add(text, NAME, NEW)


def test_an_encrypted_sha256_stays_as_it_is() -> None:
    vault = "!vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      6162\n"
    text = f"{NAME}:\n  - client: old\n    key_sha256: {vault}b: 2\n"
    edited = listedit.add(text, NAME, NEW)
    assert vault in edited
    assert listedit.remove(edited, NAME, 1) == text
    assert lists(listedit.remove(edited, NAME, 0)) == [NEW]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.fixed_dictionaries({"client": st.text("abc", min_size=1), "label": st.text()})),
    st.sampled_from([None, True, False]),
    st.integers(0, 4),
)
def test_any_list_that_yaml_writes(
    entries: list[dict[str, str]], flow: bool | None, place: int
) -> None:
    text = yaml.safe_dump({"a": 1, NAME: entries, "z": [1]}, default_flow_style=flow)
    edited = listedit.add(text, NAME, NEW)
    assert yaml.safe_load(edited) == {"a": 1, NAME: [*entries, NEW], "z": [1]}
    if entries:
        place %= len(entries)
        left = [*entries[:place], *entries[place + 1 :], NEW]
        assert yaml.safe_load(listedit.remove(edited, NAME, place))[NAME] == left
