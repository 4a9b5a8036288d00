"""A failure of making images, packages or wheels, as the product's own error."""

from __future__ import annotations

from bundle.errors import AirliftError, Kind


class Problem(AirliftError):  # noqa: N818 - what a person reads, not a programming error
    """Something that a bundle is made of is missing or wrong."""

    def __init__(self, message: str, *, fix: str = "", where: str = "") -> None:
        super().__init__(Kind.BUILD_INPUT, message, fix=fix, where=where)

    @property
    def message(self) -> str:
        """What is wrong."""
        return self.what
