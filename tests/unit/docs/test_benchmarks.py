"""docs/benchmarks/README.md is generated from the results alone."""

import re

import pytest

from scripts import bench_page


def test_the_page_is_made_of_the_results() -> None:
    found = (bench_page.RESULTS / "README.md").read_text()
    assert found == bench_page.page(bench_page.load()), (
        "run: python -c 'from scripts import bench_page; bench_page.save({})'"
    )


@pytest.mark.parametrize("key", ["swaps", "jobs_accepted", "bundle_bytes", "verify_peak_mib"])
def test_what_was_not_measured_has_no_section(key: str) -> None:
    """A machine with a single measurement can write a page, too."""
    results = bench_page.load()
    heads = re.findall("^## .*$", bench_page.page(results), re.MULTILINE)
    del results[key]
    assert len(re.findall("^## .*$", bench_page.page(results), re.MULTILINE)) == len(heads) - 1
