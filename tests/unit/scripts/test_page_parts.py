"""A generated part replaces only the text between its markers."""

from __future__ import annotations

import pytest

from scripts.page_parts import PartError, between, blocks, table


def test_only_what_is_between_the_markers_is_replaced() -> None:
    page = "a\n<!-- x -->\nold\n<!-- end -->\nb\n"
    assert between(page, "<!-- x -->", "<!-- end -->", "new") == page.replace("old", "new")


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<!-- x -->",
        "<!-- end -->",
        "<!-- end --><!-- x -->",
        "<!-- x --><!-- x --><!-- end -->",
    ],
)
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(PartError, match="<!-- x --> … <!-- end -->"):
        between(page, "<!-- x -->", "<!-- end -->", "new")


def test_blocks_and_tables_are_found_by_their_marks() -> None:
    page = "<!-- a -->\n```sh\nls\n```\n<!-- b -->\n| x | y |\n|---|---|\n| 1 | 2 |\n"
    assert blocks(page) == {"a": "ls\n"}
    assert blocks(page, "text") == {}
    assert table(page, "b") == [["1", "2"]]
    with pytest.raises(PartError, match="<!-- c -->"):
        table(page, "c")
