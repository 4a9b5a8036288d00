"""Build the local stack's images from Debian packages, for machines without a registry.

python -m scripts.stack_images

It builds missing images in the engine and writes .cache/stack/images.env: variables with which
docker-compose.yml uses these images instead of the pinned ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bundle.builder import suppliers
from bundle.builder.images import engine, lockfile, recipes
from bundle.builder.problems import Problem
from bundle.errors import AirliftError

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "bundle" / "images.lock.yml"
OVERRIDES = ROOT / ".cache" / "stack" / "images.env"


def say(message: str) -> None:
    """Report progress on standard error."""
    print(f"images: {message}", file=sys.stderr, flush=True)


def variable(name: str) -> str:
    """Return the variable of docker-compose.yml that overrides an image of the lock."""
    return f"{name.upper().replace('-', '_')}_IMAGE"


def build() -> dict[str, str]:
    """Build every image that Debian has packages for; return variable: image."""
    pins = lockfile.load(LOCK)
    app = "airlift/app:local"
    suppliers.app_image(LOCK, "app", "debian", app, say)
    made = {variable("app"): app}
    for name, pin in pins.images.items():
        if pin.recipe and pin.upstream:
            base = recipes.base(pins, pin.recipe.base, say)
            tag = f"airlift/{name}:debian"
            engine.tag(recipes.make(pins, pin.recipe, base, say), tag)
            made[variable(name)] = tag
    return made


def main() -> int:
    """Build, and write the overrides."""
    try:
        made = build()
    except (Problem, AirliftError) as problem:
        print(f"images: {problem}", file=sys.stderr)
        return 1
    # Omit the profile of Grafana, which has no such image.
    lines = [*(f"{name}={image}" for name, image in sorted(made.items())), "COMPOSE_PROFILES="]
    OVERRIDES.parent.mkdir(parents=True, exist_ok=True)
    OVERRIDES.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
