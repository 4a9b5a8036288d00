"""Redis with damaged files, started by the role: it starts empty and logs the reason."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Environment

from tests.unit.roles.conftest import ROLES, plugin

pytestmark = [pytest.mark.docker, pytest.mark.slow]
IMAGE = "airlift/redis:debian"
CONF = """
bind 127.0.0.1
dir /data
appendonly yes
appendfsync always
save ""
daemonize no
"""


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout.strip()


class Redis:
    """A container as the role makes it, without TLS and accounts."""

    def __init__(self, folder: Path) -> None:
        self.name = f"probe-{uuid.uuid4().hex[:8]}"
        self.data, self.conf = folder / "data", folder / "conf"
        self.data.mkdir()
        self.conf.mkdir()
        self.data.chmod(0o777)
        self.configure()
        script = (ROLES / "redis/templates/start.sh.j2").read_text()
        text = Environment(autoescape=False).from_string(script).render(redis_settings={})  # noqa: S701
        (self.conf / "start.sh").write_text(text)
        docker(
            *["run", "--detach", "--init", "--name", self.name, "--network", "none", "--read-only"],
            *["--restart", "unless-stopped", "--user", "999:999", "--cap-drop", "ALL"],
            *["--volume", f"{self.data}:/data", "--volume", f"{self.conf}:/etc/airlift/redis:ro"],
            *["--entrypoint", "sh", IMAGE, "/etc/airlift/redis/start.sh"],
        )
        self.wait()

    def configure(self, more: str = "") -> None:
        (self.conf / "redis.conf").write_text(CONF + more)

    def ask(self, *words: str) -> str:
        return docker("exec", self.name, "redis-cli", *words, check=False)

    def wait(self) -> None:
        for _ in range(300):
            if self.ask("ping") == "PONG":
                return
            time.sleep(0.1)
        pytest.fail(self.log())

    def log(self) -> str:
        return docker("logs", self.name)

    def fill(self) -> None:
        for number in range(40):
            self.ask("set", f"key-{number}", "some value of a hint " * 4)

    def stop(self) -> float:
        before = time.monotonic()
        docker("stop", "--time", "30", self.name)
        return time.monotonic() - before

    def start(self) -> None:
        docker("start", self.name)
        self.wait()

    def aside(self) -> list[Path]:
        return sorted(self.data.glob("damaged-*"))

    def file(self) -> Path:
        return max(self.data.glob("appendonlydir/*.incr.aof"))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    held = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False)
    if held.returncode:
        pytest.skip(f"no image {IMAGE}; make images")
    made = Redis(tmp_path)
    yield made
    docker("rm", "--force", made.name)


def damage(path: Path) -> None:
    """Overwrite 60 bytes in the middle of the file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\x99" * 60)


def test_damage_in_the_middle_is_set_aside_and_said(redis: Redis) -> None:
    redis.fill()
    redis.stop()
    damage(redis.file())
    redis.start()
    assert redis.ask("dbsize") == "0"
    (aside,) = redis.aside()
    assert f"damaged; set aside as /data/{aside.name}" in redis.log()
    assert "Bad file format reading the append only file" in redis.log()
    assert "is not valid" in (aside / "check.txt").read_text()
    # It works as usual again: it keeps data, and stops on request.
    redis.ask("set", "new", "1")
    docker("kill", redis.name)
    redis.start()
    assert redis.ask("get", "new") == "1"
    assert redis.aside() == [aside]


def test_not_more_than_two_are_kept(redis: Redis) -> None:
    for day in range(1, 6):
        (redis.data / f"damaged-2026010{day}T000000Z").mkdir()
    redis.fill()
    redis.stop()
    damage(redis.file())
    redis.start()
    assert [path.name[:16] for path in redis.aside()][:1] == ["damaged-20260105"]
    assert len(redis.aside()) == 2


def test_an_end_that_was_cut_short_is_not_damage(redis: Redis) -> None:
    """A power cut leaves this; Redis drops only the last command."""
    redis.fill()
    redis.stop()
    with redis.file().open("r+b") as file:
        file.truncate(redis.file().stat().st_size - 7)
    redis.start()
    assert redis.ask("dbsize") == "39"
    assert redis.aside() == []


def test_another_reason_touches_no_file(redis: Redis) -> None:
    redis.fill()
    redis.stop()
    redis.configure("no-such-setting 1\n")
    docker("start", redis.name)
    for _ in range(100):
        if int(docker("inspect", "-f", "{{.RestartCount}}", redis.name)) > 1:
            break
        time.sleep(0.1)
    # A stop in the middle of the script adds no message.
    docker("restart", "--time", "0", redis.name)
    words = plugin("site/module_utils/engine_client.py").last_words(redis.name)
    assert words.startswith("wrong setting 'no-such-setting 1': ")
    assert redis.aside() == []
    redis.configure()
    redis.wait()
    assert redis.ask("dbsize") == "40"


def test_it_ends_when_it_is_asked_to(redis: Redis) -> None:
    """The script passes the signal on, the data are on disk, and the exit code is 0."""
    redis.fill()
    redis.stop()
    assert "Redis is now ready to exit, bye bye" in redis.log()
    assert docker("inspect", "-f", "{{.State.ExitCode}}", redis.name) == "0"
    redis.start()
    assert redis.ask("dbsize") == "40"


def test_a_server_that_is_killed_is_started_again(redis: Redis) -> None:
    redis.fill()
    server = "$(cat /proc/[0-9]*/stat | grep '(redis-server)' | cut -d' ' -f1)"
    # The shell may end with the container, so check the restart.
    docker("exec", redis.name, "sh", "-c", f"kill -9 {server}", check=False)
    for _ in range(100):
        if docker("inspect", "-f", "{{.RestartCount}}", redis.name) == "1":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the server was not started again")
    redis.wait()
    assert redis.ask("dbsize") == "40"
    assert redis.aside() == []
