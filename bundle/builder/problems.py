"""The error of making images, packages or wheels."""

from __future__ import annotations

from bundle.errors import AirliftError, Kind


class Problem(AirliftError):  # noqa: N818 - what a person reads, not a programming error
    """An input of the bundle is missing or wrong."""

    def __init__(self, message: str, *, fix: str = "", where: str = "") -> None:
        super().__init__(Kind.BUILD_INPUT, message, fix=fix, where=where)

    @property
    def message(self) -> str:
        """Return the problem without place and fix."""
        return self.what
