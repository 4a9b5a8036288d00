"""`cp .env.example .env && docker compose up --build`, as the README has it, in a clone."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bundle.builder import wheels
from bundle.builder.images import lockfile, recipes
from scripts import stack_images
from tests.stack.stackkit import Clone, docker

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.long]


def test_up_with_build_is_all_that_is_needed(clone: Clone) -> None:
    """The base, the other images and the wheels are here what registries and an index give."""
    pins = lockfile.load(stack_images.LOCK)
    _, recipe = pins.bases["python"]
    base = recipes.make(pins, recipe, recipes.base(pins, recipe.base, print), print)
    (clone.root / "wheels").mkdir()
    locks = (clone.root / "app/requirements.txt", clone.root / "requirements/controller.txt")
    wheels.collect_app(*locks, clone.root / "wheels")
    built = clone.root / ".cache/stack/images.env"
    images = dict(line.split("=", 1) for line in built.read_text().splitlines())
    built.unlink()
    images |= {"APP_IMAGE": f"{clone.name}/app:built", "BASE_IMAGE": base}
    shutil.copy2(clone.root / ".env.example", clone.root / ".env")
    done = subprocess.run(
        [str(clone.root / "scripts/compose.sh"), "up", "--build", "--detach"],
        env={**clone.env, **images},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        form = ("inspect", "--format", "{{.Config.Image}}")
        assert docker(*form, clone.container("app")).strip() == images["APP_IMAGE"]
        clone.ready()
        assert clone.request("GET", "/faults/error")[0] == 500, "as .env.example has it"
        assert clone.request("POST", "/predict", {"text": "I love it"}, port="PORT")[0] == 200
    finally:
        clone.compose("--profile", "*", "down", "--volumes", "--timeout", "5", check=False)
        docker("image", "rm", "--force", images["APP_IMAGE"])
    assert clone.left() == []


def test_compose_is_fetched_whatever_descriptors_are_open(clone: Clone) -> None:
    """setup-environment.sh has its lock and its details open; with Debian 13's tools that broke."""
    shutil.rmtree(clone.root / ".cache/compose")
    many = " ".join(f"{number}> /dev/null" for number in range(3, 10))
    script = f'exec {many}; exec "$1" version'
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(clone.root / "scripts/compose.sh")],
        env=clone.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Docker Compose version" in done.stdout
