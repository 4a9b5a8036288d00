"""Each parser of foreign bytes is in the fuzz table and passes a short run.

`make soak-fuzz` runs the same for an hour, guided by the code that inputs reach.
"""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutate import mutated
from tests.fuzz.parser import Case, Kit, Parser, accepted
from tests.fuzz.table import EXEMPT, PARSERS

ROOT = Path(__file__).resolve().parents[3]
#: Inputs per parser, the same in each run except for keys.
TRIES, TRIES_OF_SLOW = 150, 12
#: Inputs that once crashed a parser: NAME-….
FOUND = ROOT / "tests" / "fuzz" / "found"
#: Signs of a format. A module with one of these needs a row or a reason for its absence.
READS = re.compile(
    r"json\.loads?\(|int\.from_bytes\(|struct\.unpack|csv\.(Dict)?[rR]eader\(|b64decode\("
    r"|zlib\.|gzip\.GzipFile|tarfile\.open\(|zipfile\.ZipFile\(|yaml[._](safe_)?(load|compose)\("
    r"|fromisoformat\(|strptime\(|validate_json\(|HttpToolsProtocol|BaseHTTPRequestHandler"
    r"|HeaderParser|iter_paragraphs\(|load_pem_|ast\.parse\(|marshal\.loads\(|ElementTree"
    r"|b32decode\(|unhexlify\(|bytes\.fromhex\(|httpx\.URL\(|inet_aton\(|http\.client\.HTTPConn"
    r"|asyncio\.open_connection\(|urllib\.request\.build_opener\("
)


def test_each_module_that_reads_a_format_is_in_the_table_or_says_why_not() -> None:
    read = {
        str(path.relative_to(ROOT))
        for top in ("app", "bundle", "roles")
        for path in (ROOT / top).rglob("*.py")
        if READS.search(path.read_text())
    }
    tried = {module for parser in PARSERS.values() for module in parser.modules}
    assert sorted(read - tried - set(EXEMPT)) == []
    assert [path for path in sorted(tried | set(EXEMPT)) if not (ROOT / path).is_file()] == []
    assert sorted(tried & set(EXEMPT)) == []


@pytest.mark.parametrize("parser", PARSERS.values(), ids=lambda parser: parser.name)
def test_what_was_changed_is_taken_or_refused_in_words(
    parser: Parser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = Kit(tmp_path, monkeypatch)
    with kit.later:
        _tried(parser, parser.make(kit))


def _tried(parser: Parser, case: Case) -> None:
    for seed in case.seeds:
        assert accepted(parser, case.check, seed), f"refused what the product wrote: {seed[:200]!r}"
    for path in sorted(FOUND.glob(f"{parser.name.replace(' ', '-').replace(',', '')}-*")):
        accepted(parser, case.check, path.read_bytes())
    for number in range(TRIES_OF_SLOW if parser.slow else TRIES):
        random = Random(f"{parser.name} {number}")
        data = mutated(parser.form, random.choice(case.seeds), case.seeds, random)
        try:
            accepted(parser, case.check, data)
        except BaseException:
            print(f"input {number}: {data[:1000]!r}")
            raise


def test_the_same_number_makes_the_same_input() -> None:
    for parser in PARSERS.values():
        seeds = [b'{"a": [1, 2]}\n', b"two words\r\nmore"]
        first, again = (mutated(parser.form, seeds[0], seeds, Random(7)) for _ in range(2))
        assert first == again
