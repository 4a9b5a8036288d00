"""Add up the JUnit reports of the test stages into one closing line."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def totals(folder: Path) -> tuple[int, int, int]:
    """Return (passed, failed, skipped) over every report in ``folder``."""
    tests = failed = skipped = 0
    for report in sorted(folder.glob("*.xml")):
        for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - our own file
            tests += int(suite.get("tests", "0"))
            failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
            skipped += int(suite.get("skipped", "0"))
    return tests - failed - skipped, failed, skipped


def main() -> None:
    """Print ``N passed, N failed[, N skipped]``; a failed stage without a report counts as one."""
    failed_stages, folder = int(sys.argv[1]), Path(sys.argv[2])
    passed, failed, skipped = totals(folder)
    failed = max(failed, failed_stages)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))


if __name__ == "__main__":
    main()
