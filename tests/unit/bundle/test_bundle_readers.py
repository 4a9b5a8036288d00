"""Prune and a serving registry do not run at the same time, tested with real processes."""

from __future__ import annotations

import http.client
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.jumphost import prune, readers
from bundle.jumphost.registry import RegistryServer
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import TREE, Keys, Recipe, run_import, sha
from tests.unit.bundle.deltakit import snapshot

#: Larger than the sockets' buffers, so that an answer stays open.
LAYER = random.Random(5).randbytes(24 << 20)


@pytest.fixture
def old(craft: Callable[[Recipe], Path], keys: Keys, home: Home, quick: None) -> Callable[[], bool]:
    """Import releases 1.0.0 to 1.2.0; return a check that the oldest one's layer is there."""
    for number, layer in enumerate((LAYER, b"one", b"two")):
        recipe = Recipe(f"1.{number}.0", number + 1, app_layer=layer * 9 if number else layer)
        run_import(craft(recipe), keys.trust(), home)
    blob = home.blob(sha(LAYER))
    assert blob in prune.plan(home).blobs
    return blob.is_file


@contextmanager
def stream(port: int) -> Iterator[http.client.HTTPResponse]:
    """Open an answer and read its first bytes."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
        # Set the buffer before connecting, or the kernel uses a larger one.
        client._create_connection = _small  # type: ignore[attr-defined]
        client.request("GET", f"/v2/airlift/app/blobs/sha256:{sha(LAYER)}")
        answer = client.getresponse()
        assert answer.read(1000) == LAYER[:1000]
        yield answer


def _small(address: tuple[str, int], *_: object) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(address)
    return connection


@contextmanager
def started(home: Home) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bundle", "serve", "--store", str(home.store)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=TREE, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(home: Home) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with started(home) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().strip().rpartition(":")[2])


def test_a_prune_is_refused_while_a_registry_streams_and_names_it(
    old: Callable[[], bool], home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(home) as (process, port), stream(port) as answer:
        before = snapshot(home.root)
        assert main(["prune", "--apply", "--home", str(home.root)]) == Kind.LOCKED.exit_code
        said = capsys.readouterr().err
        assert "hosts are served from this store by process " in said
        assert f"process {process.pid} (" in said
        assert "stop `bundle serve`" in said
        lock = str(home.store / "lock")
        assert {**snapshot(home.root), lock: 0} == {**before, lock: 0}
        assert main(["prune", "--home", str(home.root)]) == 0, "a dry run is allowed"
        assert len(answer.read()) == len(LAYER) - 1000
    assert main(["prune", "--apply", "--home", str(home.root)]) == 0
    assert not old()


def test_an_answer_that_outlives_its_server_keeps_the_blobs(
    old: Callable[[], bool], home: Home
) -> None:
    server = RegistryServer(home.store)
    with stream(server.start()) as answer:
        server.stop()
        with pytest.raises(AirliftError) as caught:
            prune.apply(home)
        assert caught.value.kind is Kind.LOCKED
        assert answer.read() == LAYER[1000:]
    server.stop()
    _until_free(home)
    prune.apply(home)
    assert not old()


def _until_free(home: Home) -> None:
    """Wait until the server's thread notices that the client is done."""
    while True:
        try:
            with readers.nobody(home.store):
                return
        except AirliftError:
            continue


PRUNE = """
import sys
from pathlib import Path
from bundle.jumphost import prune
from bundle.jumphost.store import Home
plan = prune.plan
def waits(*args, **named):
    found = plan(*args, **named)
    print("planned", flush=True)
    sys.stdin.readline()
    return found
prune.plan = waits
prune.apply(Home(Path(sys.argv[1])))
"""


@pytest.mark.usefixtures("old")
def test_no_registry_begins_while_a_prune_removes_blobs(home: Home) -> None:
    command = [sys.executable, "-c", PRUNE, str(home.root)]
    with subprocess.Popen(
        command, cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "planned\n"
        with started(home) as refused:
            assert refused.stdout is not None
            assert refused.stderr is not None
            # A registry that serves prints its port here.
            assert refused.stdout.readline() == ""
            said = refused.stderr.read()
        assert refused.returncode == Kind.LOCKED.exit_code
        assert f"a prune is removing blobs of this store by process {other.pid} (" in said
        with pytest.raises(AirliftError, match="a prune is removing"), readers.reading(home.store):
            pass
        other.communicate("\n")
    assert other.returncode == 0
    with RegistryServer(home.store), RegistryServer(home.store):
        pass
