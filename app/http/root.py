"""The root endpoint."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from app import __version__
from app.http.answers import answer

router = APIRouter(tags=["health"])


class Links(BaseModel):
    """Links to the documentation."""

    swagger: str = "/docs"
    redoc: str = "/redoc"
    openapi: str = "/openapi.json"


class Root(BaseModel):
    """Name and version of the service."""

    service: str = Field(examples=["Data Collection Service"])
    version: str
    release: str
    colour: str = Field(examples=["blue"])
    docs: Links


@router.get("/", response_model=Root, summary="Name and version of the service")
async def root(request: Request) -> Response:
    """Return name, version and colour, and links to the documentation."""
    settings = request.app.state.settings
    return answer(
        Root(
            service=request.app.title,
            version=__version__,
            release=settings.release,
            colour=settings.colour,
            docs=Links(),
        )
    )
