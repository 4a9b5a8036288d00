"""Known vulnerabilities match as Debian defines it; a missing scan is never reported as clean."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from bundle.builder import build
from bundle.builder.about import debian_tracker, documents, pip_audit, vulnerabilities
from bundle.builder.about.inventory import Contents, Package
from bundle.builder.about.pip_audit import Audit
from bundle.builder.release import Release
from bundle.cli.main import main
from bundle.core.events import Log
from bundle.errors import AirliftError, Kind
from tests.unit.bundle.aboutkit import debian, layer, parsed, subject, written
from tests.unit.bundle.bundlekit import FakeSuppliers, Keys

# A small file in the tracker's format.
TRACKER = {
    "openssl": {
        "CVE-2026-0001": {
            "scope": "remote",
            "debianbug": 1,
            "description": "An issue that was fixed in an update.",
            "releases": {
                "trixie": {
                    "status": "resolved",
                    "repositories": {"trixie": "3.5.1-1", "trixie-security": "3.5.1-1+deb13u2"},
                    "fixed_version": "3.5.1-1+deb13u2",
                    "urgency": "high",
                },
                "bookworm": {
                    "status": "open",
                    "repositories": {"bookworm": "3.0.17-1"},
                    "urgency": "low",
                },
            },
        },
        "CVE-2026-0002": {
            "releases": {
                "trixie": {"status": "open", "repositories": {}, "urgency": "not yet assigned"}
            }
        },
        "CVE-2026-0003": {
            "releases": {
                "trixie": {"status": "resolved", "fixed_version": "0", "urgency": "unimportant"}
            }
        },
        "CVE-2026-0004": {
            "releases": {"trixie": {"status": "undetermined", "urgency": "not yet assigned"}}
        },
    },
    "golang-golang-x-net": {
        "CVE-2026-0005": {
            "releases": {
                "trixie": {
                    "status": "resolved",
                    "fixed_version": "1:0.30.0-1",
                    "urgency": "medium",
                }
            }
        }
    },
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "tracker.json"
    path.write_text(json.dumps(TRACKER))
    return path


def found(data: Path, version: str, distro: str = "trixie", **fields: Any) -> dict[str, Any]:
    package = Package(
        "deb",
        "libssl3t64",
        version,
        vendor="debian",
        distro=distro,
        source="openssl",
        source_version=version,
        **fields,
    )
    matched = debian_tracker.match(debian_tracker.load(data), {"app": Contents((package,))})
    return {finding["id"]: finding for finding in matched}


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("3.5.1-1", True),
        ("3.5.1-1+deb13u1", True),
        # `~` sorts before everything, so this version comes before the fix.
        ("3.5.1-1+deb13u2~bpo1", True),
        ("3.5.1-1+deb13u2", False),
        ("3.5.1-1+deb13u10", False),
        ("3.10.0-1", False),
        # A version with an epoch is newer than any without one.
        ("1:1.0-1", False),
    ],
)
def test_versions_are_compared_as_dpkg_does(data: Path, version: str, affected: bool) -> None:
    issues = found(data, version)
    assert ("CVE-2026-0001" in issues) is affected
    if affected:
        assert issues["CVE-2026-0001"] == {
            "id": "CVE-2026-0001",
            "component": "app",
            "package": "libssl3t64",
            "version": version,
            "severity": "high",
            "fixed_in": "3.5.1-1+deb13u2",
        }


def test_open_undetermined_and_never_affected(data: Path) -> None:
    issues = found(data, "3.5.4-1")
    assert set(issues) == {"CVE-2026-0002", "CVE-2026-0004"}
    assert issues["CVE-2026-0002"]["fixed_in"] is None
    assert issues["CVE-2026-0004"]["severity"] == "undetermined"


def test_only_the_packages_own_release_counts(data: Path) -> None:
    assert set(found(data, "3.0.17-1", "bookworm")) == {"CVE-2026-0001"}
    assert found(data, "3.0.17-1", "forky") == {}


def test_sources_that_were_linked_in_count_too(data: Path) -> None:
    issues = found(data, "9", static=("golang-golang-x-net 1:0.27.0-2",))
    assert issues["CVE-2026-0005"]["package"] == "golang-golang-x-net"
    assert issues["CVE-2026-0005"]["version"] == "1:0.27.0-2"
    assert "CVE-2026-0005" not in found(data, "9", static=("golang-golang-x-net 1:0.30.0-1",))


def test_a_folder_of_files_and_their_names_in_the_report(data: Path, tmp_path: Path) -> None:
    (tmp_path / "second.json").write_text(
        json.dumps({"zlib": {"CVE-2026-0009": {"releases": {"trixie": {"status": "open"}}}}})
    )
    tracker = debian_tracker.load(tmp_path)
    assert set(tracker.entries) == {"openssl", "golang-golang-x-net", "zlib"}
    assert "tracker.json sha256:" in tracker.database
    assert "second.json sha256:" in tracker.database
    assert tracker.releases == {"trixie", "bookworm"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"openssl": []}',
        '{"openssl": {"CVE-1": {}}}',
        '{"openssl": {"CVE-1": {"releases": {"trixie": {"status": "wontfix"}}}}}',
        json.dumps(
            {"a": {"CVE-1": {"releases": {"x": {"status": "open", "fixed_version": "no version"}}}}}
        ),
    ],
)
def test_bad_data_is_refused_before_any_work(
    text: str, tmp_path: Path, tree: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Never(FakeSuppliers):
        def wheels(self, requirements: Path, dest: Path, log: Log) -> None:
            raise AssertionError

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    wanted = build.Options(tree, tmp_path / "out", (keys.key(),), "x@y", vulnerability_data=bad)
    with pytest.raises(AirliftError) as caught:
        build.build(wanted, Never(), log=lambda _: None)
    assert caught.value.kind is Kind.BUILD_INPUT
    assert "bad.json" in caught.value.where
    assert "docs/SBOM.md" in caught.value.fix
    assert not (tmp_path / "out").exists()


def test_nothing_was_scanned_and_why(tmp_path: Path, tree: Path) -> None:
    report = parsed(written(tmp_path, subject(tmp_path, tree)), "vulnerabilities.json")
    assert report["scanned"] is False
    assert report["findings"] == []
    assert (report["scanner"], report["database"]) == (None, None)
    assert "--vulnerability-data" in report["reason"]
    assert "did not ask pip-audit" in report["reason"]


def test_one_scanner_worked_and_what_it_could_not_know(
    data: Path, tmp_path: Path, tree: Path
) -> None:
    forky = debian("libc6 2.41-12")
    forky["usr/lib/os-release"] = "ID=debian\nVERSION_CODENAME=forky\n"
    layers = {
        "app": [layer(debian("libssl3t64 3.5.1-1\nSource: openssl"))],
        "nginx": [layer(forky)],
        "odd": [layer({"x": "y"})],
    }
    one = subject(tmp_path, tree, layers, tracker=debian_tracker.load(data))
    report = parsed(written(tmp_path, one), "vulnerabilities.json")
    assert set(report) == {"scanned", "reason", "scanner", "database", "findings"}
    assert report["scanned"] is True
    assert {"CVE-2026-0001", "CVE-2026-0002"} <= {f["id"] for f in report["findings"]}
    assert {f["component"] for f in report["findings"]} == {"app"}
    assert "debian forky was not scanned" in report["reason"]
    assert "not all packages of odd are known" in report["reason"]
    assert "python-debian" in report["scanner"]


def test_what_pip_audit_said_is_in_the_report(tmp_path: Path, tree: Path) -> None:
    finding = {"id": "CVE-1", "component": "app", "package": "x", "version": "1"}
    finding |= {"severity": "", "fixed_in": ""}
    answer: Future[Audit] = Future()
    answer.set_result(Audit(findings=(finding,), audited=7, scanner="pip-audit 1"))
    report = parsed(written(tmp_path, subject(tmp_path, tree, audit=answer)), vulnerabilities.NAME)
    assert (report["scanned"], report["findings"]) == (True, [finding])
    assert report["scanner"] == "pip-audit 1"
    assert "operating system packages were not scanned" in report["reason"]


@pytest.fixture
def silent_proxy() -> Iterator[str]:
    """Return a port that accepts connections and never answers, like a dropping firewall."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


LOCK = "airlifttiny==1.0 --hash=sha256:" + "0" * 64 + "\n"


def test_a_service_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the real pip-audit against a port where nobody listens."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    answer = pip_audit.run({"app": LOCK}, ["unreachable"])
    assert answer.reason is not None
    assert answer.reason.startswith("pip-audit failed: ")
    assert not vulnerabilities.assess({}, None, answer)["scanned"]


def test_a_service_that_never_answers_is_given_up(
    silent_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", silent_proxy)
    monkeypatch.setattr(pip_audit, "_CONNECT_SECONDS", 60)
    monkeypatch.setattr(pip_audit, "_WHOLE_SECONDS", 4)
    start = time.monotonic()
    answer = pip_audit.run({"app": LOCK}, ["silent"])
    assert time.monotonic() - start < 10
    assert answer.reason == "pip-audit's service did not answer within 4 s"


def program(folder: Path, body: str) -> None:
    """Write a stand-in for pip-audit: a test cannot control the service's answers."""
    (folder / "pip_audit").mkdir()
    (folder / "pip_audit" / "__init__.py").touch()
    (folder / "pip_audit" / "__main__.py").write_text(body)


ANSWER = {
    "dependencies": [
        {
            "name": "jinja2",
            "version": "2.4.1",
            "vulns": [
                {
                    "id": "PYSEC-2019-217",
                    "fix_versions": ["2.10.1"],
                    "aliases": ["GHSA-462w-v97r-4m45", "CVE-2019-10906"],
                    "description": "x",
                }
            ],
        },
        {"name": "good", "version": "1.0", "vulns": []},
        {"name": "odd", "skip_reason": "Dependency not found"},
    ],
    "fixes": [],
}


def test_what_pip_audit_finds_and_what_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = tmp_path / "count"
    program(
        tmp_path,
        "import sys, pathlib\n"
        f"pathlib.Path({str(count)!r}).open('a').write('x')\n"
        "assert '--require-hashes' in sys.argv and '--disable-pip' in sys.argv\n"
        "lock = pathlib.Path(sys.argv[sys.argv.index('--requirement') + 1]).read_text()\n"
        "assert lock.count('airlifttiny==') == lock.count('Jinja2[i18n]==') == 1\n"
        f"print({json.dumps(ANSWER)!r}); sys.exit(1)\n",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    hashed = f"Jinja2[i18n]==2.4.1 ; python_version > '3' \\\n    --hash=sha256:{'0' * 64}\n"
    locks = {"app": LOCK + hashed, "jump-host": LOCK}
    answer = pip_audit.run(locks, ["found"])
    assert answer.findings == (
        {
            "id": "CVE-2019-10906",
            "component": "app",
            "package": "jinja2",
            "version": "2.4.1",
            "severity": None,
            "fixed_in": "2.10.1",
        },
    )
    report = vulnerabilities.assess({}, None, answer)
    assert report["scanned"] is True
    assert "Python packages unknown to the service: odd" in report["reason"]
    # A release is queried once: its delta must say the same as its full bundle.
    asked = count.read_text()
    assert pip_audit.run(locks, ["found"]) == answer
    assert count.read_text() == asked
    pip_audit.run(locks, ["another release"])
    assert count.read_text() != asked


def test_unknown_packages_alone_are_not_a_green_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip-audit reports "No known vulnerabilities found" and exits with 0 in this case."""
    only = {"dependencies": [{"name": "odd", "skip_reason": "Dependency not found"}]}
    program(tmp_path, f"print({json.dumps(only)!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = pip_audit.run({"app": LOCK}, ["skipped"])
    assert answer.reason == "pip-audit's service knows none of the packages"
    assert not vulnerabilities.assess({}, None, answer)["scanned"]


def test_no_failure_of_it_fails_a_build(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    release = Release("9.9.9", 99, {}, {}, "2026-01-01T00:00:00Z", "unknown", ())
    asked = documents.ask(tree, release, (), None, True)
    assert asked.audit is not None
    assert str(asked.audit.result(timeout=30).reason).startswith("pip-audit failed")


def test_the_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["build", "--help"])
    assert "--vulnerability-data FILE|DIR" in capsys.readouterr().out
