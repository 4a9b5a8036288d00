"""A backup is valid only after a test restore, and any interrupted run leaves the next one intact.

Real servers run in containers of the product's own image, set up as on a site; the module is its
own process, as on a host.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bundle.builder.images import engine
from tests.unit.app.appkit import eventually, image_of
from tests.unit.roles.conftest import ROLES, plugin

USER = "999:999"
# Ansible would pack the module with its helpers; put them on its path instead.
RUNNER = """
import json, runpy, sys
import ansible.module_utils
from ansible.module_utils import basic
ansible.module_utils.__path__ += sys.argv[2:]
basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = sys.stdin.buffer.read(), "legacy"
runpy.run_path(sys.argv[1], run_name="__main__")
"""
# Session settings of the service must not affect the text of a row, nor the time that a
# transaction may idle.
ODD_SETTINGS = (
    *("-c", "timezone=Asia/Tokyo", "-c", "datestyle=German", "-c", "bytea_output=escape"),
    *("-c", "extra_float_digits=-5", "-c", "idle_in_transaction_session_timeout=100ms"),
    *("-c", "statement_timeout=3s", "-c", "intervalstyle=sql_standard"),
)
START = f"""
initdb --pgdata /data/db --username postgres --auth-local peer --auth-host reject \\
    --encoding UTF8 --locale C --locale-provider builtin --builtin-locale C.UTF-8 --no-sync
exec postgres -D /data/db -c listen_addresses= -c fsync=off {" ".join(ODD_SETTINGS)}
"""
ODD_SCHEMA = """ "sch'ema.""odd" """.strip()
ODD_TABLE = ODD_SCHEMA + '."Ta;ble -- \\q\n:name"'
ODD_NAMES = f"""
CREATE ROLE app LOGIN;
CREATE SCHEMA {ODD_SCHEMA};
CREATE TABLE {ODD_TABLE} ("r" int, "select" text, r_ int);
INSERT INTO {ODD_TABLE} SELECT g, 'row ' || g, NULL FROM generate_series(1, 100) g;
"""
TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE kinds (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, small smallint, real real, double float8,
    exact numeric, text text, bytes bytea, at timestamptz, day date, span interval, flag boolean,
    doc jsonb, raw json, uuid uuid, list text[], address inet, range int4range, mood mood,
    cash money, about regclass, twice int GENERATED ALWAYS AS (small * 2) STORED
);
INSERT INTO kinds (small, real, double, exact, text, bytes, at, day, span, flag, doc, raw, uuid,
                   list, address, range, mood, cash, about)
SELECT g, g / 3.0, pi() * g, (g || '.00100')::numeric, E'a\\tb\\\\N' || chr(8364) || g,
       decode(md5(g::text), 'hex'), '2026-01-01 00:00+02'::timestamptz + g * '1 hour'::interval,
       '2026-01-01'::date + g, make_interval(days => g, secs => g / 7.0), g % 2 = 0,
       jsonb_build_object('g', g, 'n', NULL), '{"b": 1,  "a": 1}', gen_random_uuid(),
       ARRAY['x', NULL, 'y"' || g], '10.0.0.1'::inet + g, int4range(g, g + 3), 'happy',
       g::money, 'pg_class'::regclass
FROM generate_series(1, 500) g;
INSERT INTO kinds (double) VALUES ('NaN'), ('-0'), ('Infinity'), (NULL);
CREATE TABLE twins (a int);
INSERT INTO twins VALUES (1), (1), (2);
CREATE TABLE empty (a int);
CREATE TABLE no_columns ();
CREATE TABLE parted (day date, n int) PARTITION BY RANGE (day);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
INSERT INTO parted VALUES ('2026-01-05', 1);
CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
INSERT INTO child VALUES (1, 2);
CREATE TABLE guarded (a int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY only_app ON guarded TO app USING (a > 1);
INSERT INTO guarded VALUES (1), (2);
CREATE SEQUENCE used START 5; SELECT nextval('used'), nextval('used');
CREATE SEQUENCE unused START 7;
CREATE MATERIALIZED VIEW old AS SELECT count(*) FROM twins;
"""
# The column has the module's name for a row, but the whole row must still be hashed.
BANK = """
CREATE TABLE account (r int PRIMARY KEY, balance int NOT NULL);
INSERT INTO account SELECT g, 100 FROM generate_series(1, 50) g;
CREATE TABLE transfer (id bigint GENERATED ALWAYS AS IDENTITY, payload text);
INSERT INTO transfer (payload) SELECT repeat(md5(g::text), 20) FROM generate_series(1, 20000) g;
CREATE TABLE receipt (id bigint);
INSERT INTO receipt SELECT id FROM transfer;
CREATE PROCEDURE churn() LANGUAGE plpgsql AS $$
DECLARE one bigint;
BEGIN
    LOOP
        INSERT INTO transfer (payload) VALUES (md5(random()::text)) RETURNING id INTO one;
        INSERT INTO receipt VALUES (one);
        UPDATE account SET balance = balance - 1 WHERE r = 1 + one % 50;
        UPDATE account SET balance = balance + 1 WHERE r = 1 + (one + 1) % 50;
        COMMIT;
        PERFORM pg_sleep(0.0005);
    END LOOP;
END $$;
"""


def docker(*arguments: str, data: str | None = None, check: bool = True) -> str:
    done = subprocess.run(
        [*engine.docker(), *arguments], input=data, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class Source:
    """The site's server: the container that is backed up."""

    image: str
    name: str = field(default_factory=lambda: f"t-backup-{uuid.uuid4().hex[:8]}")

    def psql(self, database: str) -> list[str]:
        fixed = ["exec", "--interactive", "--user", USER]
        fixed += ["--env", "PGOPTIONS=-c statement_timeout=0"]
        quiet = ["psql", "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]
        return [*fixed, self.name, *quiet, "-d", database]

    def sql(self, text: str, database: str = "postgres") -> str:
        return docker(*self.psql(database), data=text)

    def database(self, setup: str) -> str:
        name = f"db_{uuid.uuid4().hex[:8]}"
        self.sql(f"CREATE DATABASE {name}")
        self.sql(setup, name)
        return name

    def sessions(self) -> int:
        counted = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'airlift-backup'"
        return int(self.sql(counted))


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    if os.geteuid() != 0:
        pytest.skip("a temporary server's folder belongs to the server's user: run this as root")
    engine.require()
    server = Source(image_of("postgres"))
    try:
        docker(
            *("run", "--detach", "--name", server.name, "--user", USER, "--network", "none"),
            *("--read-only", "--tmpfs", "/data:uid=999", "--tmpfs", "/run/postgresql:uid=999"),
            *("--entrypoint", "sh", server.image, "-ec", START),
        )
        eventually(
            lambda: "accepting" in docker("exec", server.name, "pg_isready", check=False),
            what="Postgres",
        )
        yield server
    finally:
        docker("rm", "--force", "--volumes", server.name, check=False)


@dataclass
class Backup:
    """The module with its options."""

    source: Source
    directory: Path
    options: dict[str, Any]
    path: str = ""

    @property
    def scratch(self) -> str:
        return str(self.options["scratch"])

    def start(self, *prefix: str, **options: Any) -> subprocess.Popen[str]:
        command = [*prefix, sys.executable, "-c", RUNNER]
        command += [str(ROLES / "backup/library/postgres_backup.py")]
        process = subprocess.Popen(
            [*command, *(str(ROLES / role / "module_utils") for role in ("backup", "site"))],
            env={"PATH": f"{self.path}{Path(engine.docker()[0]).parent}:{os.environ['PATH']}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {**self.options, **options}}))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, *prefix: str, **options: Any) -> dict[str, Any]:
        return self.result(self.start(*prefix, **options))

    def result(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        out, err = process.communicate(timeout=120)
        assert out, err
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        assert bool(answer.get("failed")) == bool(process.returncode)
        return answer

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())

    def left(self) -> list[str]:
        """Return leftovers that no run may leave: partial files, sessions, the temporary server."""
        found = [name for name in self.files() if not name.endswith(("Z.dump", "Z.json"))]
        found += docker("ps", "--all", "--quiet", "--filter", f"name={self.scratch}").split()
        return found + ["session"] * self.source.sessions()

    def record(self) -> dict[str, Any]:
        [path] = self.directory.glob("*.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def stand_in(self, folder: Path, script: str) -> None:
        """Put a stand-in before the real `docker` that changes the output of pg_dump."""
        program = folder / "bin/docker"
        program.parent.mkdir()
        program.write_text(
            "#!/bin/sh\n"
            f'case " $* " in *" pg_dump "*) {script}; exit 0;; esac\n'
            f'exec {engine.docker()[0]} "$@"\n'
        )
        program.chmod(0o755)
        self.path = f"{program.parent}:"


@pytest.fixture
def backup(source: Source, tmp_path: Path) -> Iterator[Backup]:
    options = {
        "container": source.name,
        "image": source.image,
        "user": USER,
        "database": "postgres",
        "directory": str(tmp_path / "backup"),
        "label": "1.0.0-to-1.1.0",
        "scratch": f"t-backup-scratch-{uuid.uuid4().hex[:8]}",
    }
    yield Backup(source, tmp_path / "backup", options)
    docker("rm", "--force", "--volumes", str(options["scratch"]), check=False)


@pytest.fixture
def bank(source: Source, backup: Backup) -> str:
    backup.options["database"] = source.database(BANK)
    return str(backup.options["database"])


@pytest.mark.docker
def test_every_type_and_name_comes_back(source: Source, backup: Backup) -> None:
    name = source.database(ODD_NAMES + TYPES)
    taken = backup.run(database=name)
    assert taken["changed"], taken
    dump, record = Path(taken["path"]), backup.record()
    assert backup.files() == [dump.name, dump.with_suffix(".json").name]
    assert backup.left() == []
    assert dump.name.startswith("1.0.0-to-1.1.0-20")
    assert stat.S_IMODE(backup.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in backup.directory.iterdir()} == {0o600}
    assert hashlib.sha256(dump.read_bytes()).hexdigest() == taken["sha256"] == record["sha256"]
    assert dump.stat().st_size == taken["bytes"] == record["bytes"]
    assert (record["format"], record["database"], record["restored"]) == (1, name, True)
    assert record["postgres"].startswith("17.")
    rows = {table: content["rows"] for table, content in record["tables"].items()}
    assert rows == {
        ODD_TABLE: 100,
        "public.kinds": 504,
        "public.twins": 3,
        "public.empty": 0,
        "public.no_columns": 0,
        "public.parted_1": 1,
        "public.parent": 0,
        "public.child": 1,
        "public.guarded": 2,
    }
    assert (taken["tables"], taken["rows"]) == (9, sum(rows.values()))
    assert record["sequences"]["public.used"] == 6
    # Check independently of the module: restore the file into a database and query it.
    copy = source.database("")
    with dump.open() as stream:
        subprocess.run(
            [
                *(*engine.docker(), "exec", "--interactive", "--user", USER, source.name),
                *("pg_restore", "--exit-on-error", "-U", "postgres", "-d", copy),
            ],
            stdin=stream,
            check=True,
        )
    question = "SELECT * FROM kinds ORDER BY id; SELECT * FROM old; "
    question += f"SELECT * FROM {ODD_TABLE} ORDER BY 1"
    assert source.sql(question, copy) == source.sql(question, name)


@pytest.mark.docker
def test_check_mode_says_what_it_would_do_and_leaves_everything(
    backup: Backup, bank: str, source: Source
) -> None:
    told = backup.run(_ansible_check_mode=True)
    assert told["changed"]
    assert told["bytes"] == int(source.sql(f"SELECT pg_database_size('{bank}')"))
    assert told["msg"].startswith(f"would back up {bank} (")
    assert not backup.directory.exists()


@pytest.mark.docker
@pytest.mark.slow
def test_a_dump_under_load_is_one_moment(source: Source, backup: Backup, bank: str) -> None:
    with subprocess.Popen(
        [*engine.docker(), *source.psql(bank), "-c", "CALL churn()"], stderr=subprocess.DEVNULL
    ) as writer:
        eventually(lambda: int(source.sql("SELECT count(*) FROM transfer", bank)) > 20100)
        taken = backup.run()
        later = int(source.sql("SELECT count(*) FROM transfer", bank))
        source.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^CALL'")
        writer.wait(20)
    assert taken["changed"], taken
    tables = backup.record()["tables"]
    assert 20100 < tables["public.transfer"]["rows"] == tables["public.receipt"]["rows"] < later
    assert backup.left() == []


@pytest.mark.docker
@pytest.mark.parametrize(
    ("script", "said"),
    [
        # The dump is well-formed, but a table is empty.
        ('{docker} "$@" --exclude-table-data=account', "public.account has 0 rows instead of 50"),
        ('{docker} "$@" --exclude-table=receipt', "table public.receipt is not in it"),
        # pg_dump was cut short, but exited with 0.
        ('{docker} "$@" | head -c 20000', "the dump cannot be restored"),
        ("{docker} 2>&1 run --rm nothing-of-this-name >/dev/null", "the dump cannot be restored"),
    ],
)
@pytest.mark.slow
def test_a_dump_that_is_not_the_database_does_not_count(
    backup: Backup, bank: str, tmp_path: Path, script: str, said: str
) -> None:
    backup.stand_in(tmp_path, script.format(docker=engine.docker()[0]))
    refused = backup.run()
    assert said in refused["msg"]
    assert refused["msg"].startswith(f"the backup of {bank} failed: ")
    assert backup.files() == []
    assert backup.left() == []


@pytest.mark.docker
@pytest.mark.slow
def test_a_row_changed_on_the_way_is_found(backup: Backup, bank: str, tmp_path: Path) -> None:
    """Tables and counts are the same, so only a comparison of the contents finds it."""
    shell = f"{engine.docker()[0]} exec --user {USER} {backup.source.name}"
    change = f"{shell} psql -q -U postgres {bank} -c 'UPDATE account SET balance = 1 WHERE r = 7'"
    plain = f"{shell} pg_dump -U postgres --format=custom {bank}"
    backup.stand_in(tmp_path, f"{change}; {plain}")
    assert "table public.account has other contents in its 50 rows" in backup.run()["msg"]
    assert backup.files() == []


@pytest.mark.docker
def test_a_short_disk_is_refused_before_anything_is_written(
    backup: Backup, bank: str, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = f"mount -t tmpfs -o size=300m none {small} && exec \"$@\" && ls -A '{small}'"
    for check_mode in (True, False):
        refused = backup.run(
            *("unshare", "--mount", "sh", "-ec", mounted, "sh"),
            directory=str(small),
            _ansible_check_mode=check_mode,
        )
        assert refused["failed"]
        words = refused["msg"]
        assert f"MB in {small} (twice the database's " in words
        assert "314.6 MB are free on that file system: free or add " in words
        assert words.endswith("there, then run the same command again")


def wait_for(backup: Backup, moment: str) -> None:
    """Wait until a run is visible from outside in this phase."""
    scratch = backup.directory / "scratch"
    seen: dict[str, Callable[[], Any]] = {
        "the dump is being written": lambda: list(backup.directory.glob("*.dump.part")),
        "the temporary cluster is being made": lambda: any(scratch.glob("*")),
        "the temporary server runs": (scratch / "postmaster.pid").exists,
    }
    deadline = time.monotonic() + 30
    while not seen[moment]():
        assert time.monotonic() < deadline, moment
        time.sleep(0.005)


MOMENTS = (
    "the dump is being written",
    "the temporary cluster is being made",
    "the temporary server runs",
)


@pytest.mark.docker
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_the_next_does_not_remove(
    backup: Backup, bank: str, moment: str
) -> None:
    process = backup.start()
    wait_for(backup, moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert backup.left() != [], "it was killed too early or too late for this test"
    assert not list(backup.directory.glob("*.json"))
    taken = backup.run()
    assert taken["changed"], taken
    assert backup.record()["database"] == bank
    assert len(backup.files()) == 2
    assert backup.left() == []


@pytest.mark.docker
@pytest.mark.usefixtures("bank")
def test_a_run_that_is_told_to_stop_cleans_up_itself(backup: Backup) -> None:
    process = backup.start()
    wait_for(backup, MOMENTS[2])
    process.terminate()
    assert "it was stopped by SIGTERM" in backup.result(process)["msg"]
    assert backup.files() == []
    assert backup.left() == []


@pytest.mark.docker
@pytest.mark.usefixtures("bank")
def test_a_run_that_takes_too_long_ends(backup: Backup, tmp_path: Path) -> None:
    backup.stand_in(tmp_path, f'{engine.docker()[0]} "$@" | head -c 1000; exec sleep 60')
    assert "it did not end within 2 s (backup_timeout)" in backup.run(timeout=2)["msg"]
    assert backup.left() == []


@pytest.mark.docker
@pytest.mark.usefixtures("bank")
@pytest.mark.slow
def test_two_at_a_time_are_refused(backup: Backup) -> None:
    process = backup.start()
    wait_for(backup, MOMENTS[0])
    assert "another backup is being taken in" in backup.run()["msg"]
    assert backup.result(process)["changed"]


@pytest.mark.docker
@pytest.mark.slow
def test_the_newest_are_kept_and_halves_go(backup: Backup, source: Source) -> None:
    name = source.database("CREATE TABLE one (a int)")
    backup.directory.mkdir()
    pairs = [f"{label}-2026010{day}T000000Z" for day, label in enumerate("cab", start=1)]
    for stem in pairs:
        for suffix in (".dump", ".json"):
            (backup.directory / (stem + suffix)).touch()
    # A run killed between the two renames, and a record whose dump was removed.
    (backup.directory / "x-20270101T000000Z.dump").touch()
    (backup.directory / "y-20270101T000000Z.json").touch()
    (backup.directory / "notes.txt").touch()
    taken = backup.run(database=name, keep=2)
    assert taken["pruned"] == [f"{stem}.dump" for stem in (pairs[1], pairs[0])]
    newest = Path(taken["path"]).stem
    kept = {f"{stem}{suffix}" for stem in (newest, pairs[2]) for suffix in (".dump", ".json")}
    assert set(backup.files()) == {*kept, "notes.txt"}


@pytest.mark.docker
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"container": "t-backup-absent"}, "No such container: t-backup-absent"),
        ({"database": "absent"}, 'database "absent" does not exist'),
        ({"image": "sha256:" + 64 * "0"}, "the temporary server (initdb)"),
        ({"label": "../up"}, "label takes letters"),
        ({"keep": 0}, "keep and timeout begin at 1"),
    ],
)
def test_what_is_wrong_is_said(backup: Backup, options: dict[str, Any], said: str) -> None:
    assert said in backup.run(**options)["msg"]
    assert not backup.directory.exists() or backup.left() == []


@pytest.mark.docker
def test_the_role_hands_over_its_settings(backup: Backup, bank: str, tmp_path: Path) -> None:
    """Through Ansible: the role's defaults and options, and the module's helpers."""
    playbook = tmp_path / "play.yml"
    playbook.write_text("[{hosts: localhost, gather_facts: false, roles: [backup]}]")
    values = {
        "site_name": "x",
        "site_public_name": "x.example",
        "site_mgmt_addresses": ["10.0.0.1/32"],
        "site_release_dir": str(ROLES.parent),
        "site_data_dir": str(tmp_path),
        "site_version": "1.1.0",
        "site_images": {"postgres": backup.source.image},
        "postgres_database": bank,
        "backup_container": backup.source.name,
        "ansible_python_interpreter": sys.executable,
    }
    done = subprocess.run(
        [
            *(shutil.which("ansible-playbook") or "", "--check", "-i", "localhost,"),
            *("-c", "local", "-e", json.dumps(values), str(playbook)),
        ],
        env={
            "PATH": f"{Path(engine.docker()[0]).parent}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(ROLES.parent / "ansible.cfg"),
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"would back up {bank} (" in done.stdout
    assert f"into {backup.directory}" in done.stdout


# --- Without a server


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    import ansible.module_utils  # noqa: PLC0415

    helpers = str(ROLES / "backup/module_utils")
    ansible.module_utils.__path__.append(helpers)
    yield plugin("backup/library/postgres_backup.py")
    with contextlib.suppress(ValueError):
        ansible.module_utils.__path__.remove(helpers)


@pytest.mark.parametrize(
    ("before", "after", "found", "same"),
    [
        (5, 5, 5, True),
        (5, 9, 7, True),
        (-5, -9, -7, True),
        (5, 5, 4, False),
        (5, 9, 10, False),
        (5, 9, None, False),
    ],
)
def test_a_sequence_may_move_only_as_far_as_it_did(
    module: ModuleType, before: int, after: int, found: int | None, same: bool
) -> None:
    restored = {} if found is None else {"s": found}
    assert (module.sequence_differences({"s": before}, {"s": after}, restored) == []) is same


def test_every_difference_names_its_table(module: ModuleType) -> None:
    def table(rows: int, checksum: str = "1") -> dict[str, Any]:
        return {"rows": rows, "checksum": checksum}

    wanted = {"a": table(1), "b": table(2), "c": table(3), "d": table(4)}
    found = {"a": table(1), "b": table(1), "c": table(3, "2"), "e": table(0)}
    assert module.differences(wanted, wanted) == []
    assert module.differences(wanted, found) == [
        "table b has 1 rows instead of 2",
        "table c has other contents in its 3 rows",
        "table d is not in it",
        "table e is only in it",
    ]


def test_a_disk_that_gives_back_something_else_is_not_trusted(
    module: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "x.dump.part"
    with module.create(path) as stream:
        stream.write(b"written")
        module.flush(stream)
    module.reread(path, hashlib.sha256(b"written").hexdigest())
    path.write_bytes(b"wriTten")
    with pytest.raises(module.RefusedError, match="cannot be trusted"):
        module.reread(path, hashlib.sha256(b"written").hexdigest())


def test_a_clock_set_back_does_not_cost_the_new_backup(module: ModuleType, tmp_path: Path) -> None:
    for day in range(1, 4):
        for suffix in ("dump", "json"):
            (tmp_path / f"a-2026010{day}T000000Z.{suffix}").touch()
    current = tmp_path / "a-20260101T000000Z.dump"
    assert module.prune(tmp_path, 1, current) == [f"a-2026010{day}T000000Z.dump" for day in (3, 2)]
    assert sorted(tmp_path.iterdir()) == [current, current.with_suffix(".json")]


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (10**15, "1000.0 TB")]
)
def test_sizes_for_people(module: ModuleType, count: int, said: str) -> None:
    assert module.human(count) == said
