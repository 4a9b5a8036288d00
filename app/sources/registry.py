"""The kinds of source on this site; to add a kind, add an entry."""

from __future__ import annotations

from app.settings import Settings
from app.sources.api import ApiSource
from app.sources.base import EVERYBODY, Access, Limits, Source
from app.sources.database import DatabaseSource
from app.sources.file import FileSource
from app.sources.schemas import ApiConfig, DatabaseConfig, FileConfig

CONFIGS: dict[str, type[FileConfig | ApiConfig | DatabaseConfig]] = {
    "file": FileConfig,
    "api": ApiConfig,
    "database": DatabaseConfig,
}


def build(settings: Settings) -> dict[str, Source]:
    """Return the sources of this site by the name that requests use."""
    limits = Limits(
        max_bytes=settings.source_max_bytes,
        max_records=settings.source_max_records,
        timeout_seconds=settings.source_timeout_seconds,
    )
    everybodys = {name: [EVERYBODY] for name in settings.open_sources}
    # Without keys, clients cannot be distinguished.
    access = Access(settings.source_clients | everybodys, closed=settings.auth_enabled)
    return {
        "file": FileSource(settings.file_roots, limits, access),
        "api": ApiSource(
            settings.api_sources_allowed,
            limits,
            settings.api_sources_ca_file,
            settings.api_sources_networks,
            access,
        ),
        "database": DatabaseSource(settings.database_sources, limits, settings.secrets_dir, access),
    }
