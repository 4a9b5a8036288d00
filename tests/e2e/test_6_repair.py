"""A fault of an installed site is reported in one sentence, or repairs itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from scripts.journey import Journey
from tests.e2e.support import ok

#: Overwrites 60 bytes in the middle of Redis' newest append-only file, while it does not run.
_DAMAGE = """
docker stop airlift-redis > /dev/null
file=$(ls -t /var/lib/airlift/redis/appendonlydir/*.incr.aof | head -n 1)
size=$(stat -c %s "$file")
head -c 60 /dev/zero | tr '\\0' '\\231' |
    dd of="$file" bs=1 seek=$((size / 2)) conv=notrunc status=none
docker start airlift-redis > /dev/null
"""
_HEALTH = "docker inspect --format '{{.State.Health.Status}}' airlift-redis"


@pytest.fixture
def redis(installed: Journey) -> Iterator[Journey]:
    """The site; without damaged files afterwards."""
    yield installed
    installed.lab.console("data-1", "rm -rf /var/lib/airlift/redis/damaged-*")


def test_damaged_redis_mends_itself_and_says_so(redis: Journey) -> None:
    # Redis's file needs content that can be damaged.
    for _ in range(20):
        ok(redis, "GET", "/predict")
    redis.lab.console("data-1", _DAMAGE)
    for _ in range(60):
        if redis.lab.console("data-1", _HEALTH).output.strip() == "healthy":
            break
        time.sleep(1)
    else:
        pytest.fail(redis.lab.console("data-1", "docker logs --tail 20 airlift-redis 2>&1").output)
    said = redis.lab.console("data-1", "docker logs --tail 50 airlift-redis 2>&1").output
    assert "Airlift: the append-only files are damaged; set aside as /data/damaged-" in said
    aside = redis.lab.console("data-1", "ls -d /var/lib/airlift/redis/damaged-*/check.txt").output
    assert len(aside.split()) == 1
    ok(redis, "GET", "/predict")


@pytest.fixture
def broken(installed: Journey) -> Iterator[Journey]:
    """The site after an installation that could not start Redis; restored after the test."""
    yield installed
    installed.play("install", "--limit", "data-1", "--tags", "redis")
    said = installed.status().output
    assert "everything is as it should be" in said
    assert "failed at" not in said


def test_a_failed_install_is_told_with_its_reason(broken: Journey) -> None:
    """Redis ends at once for an unknown setting; the run fails without waiting five minutes."""
    wrong = "-e", '\'{"redis_settings": {"no-such-setting": "1"}}\''
    done = broken.play("install", "--limit", "data-1", "--tags", "redis", *wrong, check=False)
    assert done.code == 2
    text = " ".join(done.output.split())
    assert "airlift-redis on data-1: it does not stay up, restarted 3 times" in text
    assert "restarted 3 times: wrong setting 'no-such-setting 1': " in text
    assert "install of lab failed: airlift-redis on data-1" in text
    said = broken.play("status", check=False).output
    assert "was interrupted" not in said
    assert "last run: install to" in said
    assert "failed at" in said
    assert "it does not stay up" in said
