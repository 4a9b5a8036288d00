"""Style rules that a program can check: heads, sentences and words of pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.prose import PAGES, ROOT, Line, head, plain, read, reflow, words

#: README's first screen has its own order: what it is, why, how to try it.
HEADS = [path for path in PAGES if path != ROOT / "README.md"]
HEAD = ["For", "Use when", "Time", "You need", "Result"]
MOST_WORDS = 25

#: Private words and their replacements. Each has no other, usual meaning in a page.
TERMS = {
    r"\b(the|a|USB|memory) sticks?\b|\bsticks\b": "USB drive",
    r"\bthe release before\b": "the previous release",
    r"\bwhat serves\b": "the active release",
    r"\b(stands?|stood|standing) by\b": "standby",
    r"\bways? back\b": "rollback target",
    r"\b(brings?|brought) (\w+ )?into service\b": "deploy or activate",
    r"\bserves? on\b|\b(go|goes|going|went) on\b": "keeps serving, continues",
    r"\bgates? (that )?closed?s?\b": "a gate fails",
    r"\bputs? (it |them )?back\b": "restore or requeue",
    r"\bg(ive|ives|iven|iving|ave) (it |them )?up\b": "cancel",
    r"\bcut off\b": "interrupted",
    r"\bat work\b": "in progress",
    r"\bdead for certain\b": "no longer running",
    r"\bverb\b": "operation",
    r"\bmakers?\b|\bmaker's\b": "upstream package repository",
    r"\bdeltas? since\b": "a delta based on",
    r"\b(left|leaves?|leaving) out\b": "omitted",
    r"\banother way than\b": "through a separate channel",
    r"\bwho may\b": "allowed, authorised",
    r"\bnot counted\b": "ignored",
    r"\bjudged\b": "checked at",
    r"\bgood signatures?\b": "valid signature",
    r"\btold\b|\bown words\b": "reported",
    r"\bmend(s|ed|ing)?\b": "fix or repair",
    r"\banew\b": "again; recreate",
    r"\blies?\b": "is in",
    r"\bhints?\b": "wake-up message",
    r"\b(one|once) (a|an) (line|row|file|key|host)\b|\ba (line|row|file) each\b": "one per line",
    r"\b(he|him|his|himself)\b": "they",
    r"\b(color|behavior|center|catalog|artifact|gray|canceled|labeled|analyze)(s|ed)?\b": (
        "British spelling"
    ),
}


def lines(page: Path) -> list[Line]:
    """Return the headings, cells and prose lines of a page."""
    return list(read(page.read_text()))


def named(pages: list[Path]) -> pytest.MarkDecorator:
    """Return a parametrisation by page, named by path."""
    return pytest.mark.parametrize("page", pages, ids=lambda path: str(path.relative_to(ROOT)))


def long(line: Line) -> list[str]:
    """Return sentences of a line that are too long or chain parts with semicolons."""
    return [
        sentence
        for sentence in line.sentences()
        if len(words(sentence)) > MOST_WORDS or sentence.count(";") > 1
    ]


def private(line: Line) -> list[str]:
    """Return the private words of a line, each with its replacement."""
    return [
        f"{line.number}: {found[0]!r}: write {better!r}"
        for pattern, better in TERMS.items()
        for found in re.finditer(pattern, line.text, re.IGNORECASE)
    ]


def broken(line: Line) -> bool:
    """Return whether a line holds more or less than one sentence."""
    if line.kind != "prose":
        return False
    ends = re.search(r"[.!?:…][\"')*_\]]*$", line.text) is not None
    return len(line.sentences()) > 1 or (line.continues and not ends)


@named(HEADS)
def test_a_page_begins_with_whom_it_is_for_and_what_it_leads_to(page: Path) -> None:
    assert list(head(page.read_text())) == HEAD


@named(PAGES)
def test_a_sentence_has_one_idea_and_25_words_at_most(page: Path) -> None:
    assert [f"{line.number}: {text}" for line in lines(page) for text in long(line)] == []


@named(PAGES)
def test_a_line_of_prose_is_one_sentence(page: Path) -> None:
    assert [f"{line.number}: {line.text}" for line in lines(page) if broken(line)] == []


@named(PAGES)
def test_no_private_word_is_used(page: Path) -> None:
    assert [text for line in lines(page) for text in private(line)] == []


@named(PAGES)
def test_a_heading_is_a_task_or_a_noun(page: Path) -> None:
    heads = [line.text for line in lines(page) if line.kind == "heading"]
    assert [text for text in heads if re.match(r"(What|Who|Whoever)\b", text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "One. Two.",
        "A sentence that\nis on two lines.",
        "- An item. With more.",
        "1. Type `a`. Then `b`.",
        "Ends in code `a.b`. Then more.",
        "(In brackets.) And more.",
    ],
)
def test_lines_that_are_no_sentence_are_found(text: str) -> None:
    assert any(broken(line) for line in read(text))


@pytest.mark.parametrize(
    "text",
    [
        "One.\nTwo.",
        "- One\n- Two",
        "Use `a. B` here, e.g. There.",
        "```sh\none. Two.\n```",
        "Indented:\n\n    one. Two.\n",
        "<!-- one. Two. -->",
        "1. Step:\n\n   ```sh\n   a. B\n   ```\n\n   Then it prints `x`.",
        "The output:\n```text\none. Two\n```",
    ],
)
def test_lines_that_are_sentences_pass(text: str) -> None:
    assert not any(broken(line) for line in read(text))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a " * 26 + ".", 1),
        ("a " * 25 + ".", 0),
        ("`a b c` " * 25 + ".", 0),
        ("one; two; three.", 1),
        (f"| {'a ' * 26}| b |", 1),
        (f"    {'a ' * 26}", 0),
        (f"- {'a ' * 20}[{'a ' * 6}](b).", 1),
    ],
)
def test_long_sentences_are_found(text: str, count: int) -> None:
    assert sum(len(long(line)) for line in read(text)) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Copy it to the stick.", 1),
        ("A file on `the stick`.", 0),
        ("```\nthe stick\n```", 0),
        ("## The way back", 1),
        ("| the release before | x |", 1),
        ("Since Monday, a thread sticks.", 1),
        ("A delta since 1.0.0; he mends it.", 3),
    ],
)
def test_private_words_are_found_outside_of_code(text: str, count: int) -> None:
    assert sum(len(private(line)) for line in read(text)) == count


def test_a_head_has_its_form_and_place() -> None:
    rows = "".join(f"| **{name}** | a |\n" for name in HEAD)
    table = f"| | |\n|---|---|\n{rows}"
    assert list(head(f"# Page\n\n{table}\nText.\n")) == HEAD
    assert head(f"# Page\n\nText.\n\n{table}\n") == {}
    assert plain("**For** `a`, [b](c)") == "For X, b"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("One. Two.\n", "One.\nTwo.\n"),
        ("One is\non two lines. Two.\n", "One is on two lines.\nTwo.\n"),
        ("- Item. More.\n- Item\n", "- Item.\n  More.\n- Item\n"),
        ("1. Type `a. B`. Then\n   `c`.\n", "1. Type `a. B`.\n   Then `c`.\n"),
        ("**Fix.** Do [this](a. b).\n", "**Fix.**\nDo [this](a. b).\n"),
        ("It prints:\n`x`.\n", "It prints:\n`x`.\n"),
        ("**1. Begin** here, e.g. Now.\n", "**1. Begin** here, e.g. Now.\n"),
        (
            "```sh\na. B. C\n```\n| a. b | c |\n# A. B\n",
            "```sh\na. B. C\n```\n| a. b | c |\n# A. B\n",
        ),
    ],
)
def test_make_fmt_puts_each_sentence_on_its_line(before: str, after: str) -> None:
    assert reflow(before) == after
    assert reflow(after) == after
    assert not any(broken(line) for line in read(after))


@named(PAGES)
def test_make_fmt_changes_no_word(page: Path) -> None:
    before = page.read_text()
    assert reflow(before).split() == before.split()
    assert reflow(reflow(before)) == reflow(before)
