"""Settings, read from the environment and from the files in `/run/secrets`."""

from __future__ import annotations

import os
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from app import __version__
from app.sources.schemas import RegisteredDatabase

DEFAULT_SECRETS_DIR = Path("/run/secrets")
# The file name of a source's password ends with this name.
SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class ConfigurationError(Exception):
    """A setting is wrong; the message names the variable and the fix."""


class Settings(BaseSettings):
    """All settings that differ between installations.

    Each field is an environment variable of the same name in capitals. Secrets come from files with
    the field's name in the secrets directory, so that neither `docker inspect` nor
    `/proc/*/environ` shows them. Units are part of the names (`_seconds`, `_bytes`).
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    port: int = Field(default=8000, ge=1, le=65535)
    # Listen on the addresses of this machine in these networks; if empty, on all.
    listen_networks: list[IPv4Network | IPv6Network] = Field(default_factory=list)
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    web_concurrency: int = Field(default=2, ge=1, le=64)

    release: str = __version__
    revision: str = "unknown"
    colour: str = "none"
    host_name: str = Field(default_factory=lambda: os.uname().nodename)

    database_url: str | None = None
    database_password: SecretStr | None = None
    database_pool_max: int = Field(default=5, ge=1, le=100)
    database_timeout_seconds: float = Field(default=2.0, gt=0, le=60)

    redis_url: str | None = None
    redis_password: SecretStr | None = None
    redis_ca_file: Path | None = None
    redis_timeout_seconds: float = Field(default=0.5, gt=0, le=30)

    auth_enabled: bool = False
    auth_cache_seconds: float = Field(default=5.0, ge=0, le=300)

    # The HTTP edge.
    rate_limit_per_min: int = Field(default=60, ge=1)
    trusted_proxies: list[str] = Field(default_factory=list)
    request_timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    max_concurrent_requests: int = Field(default=200, ge=1)
    concurrency_wait_seconds: float = Field(default=1.0, gt=0, le=60)
    # The same limits as the edge's, which answers first.
    max_head_bytes: int = Field(default=32_768, ge=1024)
    head_timeout_seconds: float = Field(default=15.0, gt=0, le=600)
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    max_json_depth: int = Field(default=32, ge=4, le=200)
    max_text_length: int = Field(default=20_000, ge=1)
    baseline_score: float = Field(default=0.75, ge=0, le=1)
    predict_cache_bytes: int = Field(default=16_777_216, ge=0)
    predict_batch_max: int = Field(default=1000, ge=1, le=100_000)
    models_dir: Path = Path(__file__).parent / "models"
    drain_file: Path = Path("/tmp/drain")  # noqa: S108 - the only writable directory of the container

    file_roots: dict[str, Path] = Field(default_factory=dict)
    api_sources_allowed: list[str] = Field(default_factory=list)
    api_sources_ca_file: Path | None = None
    # Networks of the site that `api` source names may resolve to, besides public addresses.
    api_sources_networks: list[IPv4Network | IPv6Network] = Field(default_factory=list)
    database_sources: dict[SourceName, RegisteredDatabase] = Field(default_factory=dict)
    # Clients allowed to use a source, such as {"database:crm": ["billing"]}. With authentication
    # on, a source that is in neither list is available to no client.
    source_clients: dict[str, list[str]] = Field(default_factory=dict)
    # Sources for every client. A separate list, because older releases read "*" as a client's name.
    open_sources: list[str] = Field(default_factory=list)
    secrets_dir: Path = DEFAULT_SECRETS_DIR
    source_max_bytes: int = Field(default=20_000_000, ge=1024)
    source_max_records: int = Field(default=100_000, ge=1)
    source_timeout_seconds: float = Field(default=30.0, gt=0, le=600)

    worker_metrics_port: int = Field(default=8003, ge=1, le=65535)
    # Concurrent jobs: grows from the minimum to the maximum while due jobs wait too long.
    worker_concurrency_min: int = Field(default=2, ge=1, le=64)
    worker_concurrency_max: int = Field(default=4, ge=1, le=64, validate_default=True)
    worker_queue_age_seconds: float = Field(default=5.0, gt=0, le=3600)
    worker_poll_seconds: float = Field(default=5.0, gt=0, le=60)
    worker_drain_seconds: float = Field(default=100.0, gt=0, le=3600)
    job_lease_seconds: float = Field(default=30.0, ge=0.5, le=3600)
    job_timeout_seconds: float = Field(default=600.0, gt=0, le=86400)
    job_max_attempts: int = Field(default=5, ge=1, le=50)
    job_backoff_base_seconds: float = Field(default=2.0, gt=0, le=600)
    job_backoff_cap_seconds: float = Field(default=300.0, gt=0, le=86400)
    # Days to keep finished jobs and their results; 0 keeps them for ever.
    job_retention_days: float = Field(default=30.0, ge=0, le=36500)
    # If the queue is older than this, readiness reports "degraded" (still with status 200).
    queue_age_degraded_seconds: float = Field(default=300.0, gt=0, le=86400)
    idempotency_hours: float = Field(default=24.0, gt=0, le=8760)

    # Endpoints that fail on purpose. The image lacks their code: only the local stack mounts it.
    faults_enabled: bool = False

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url", "redis_url")
    @classmethod
    def _no_password_in_url(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).password is not None:
            msg = "must carry no password; put it in a file of /run/secrets"
            raise ValueError(msg)
        return value

    @field_validator("database_url")
    @classmethod
    def _postgres_scheme(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).scheme not in ("postgresql", "postgres"):
            msg = "must start with postgresql://"
            raise ValueError(msg)
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).scheme not in ("redis", "rediss"):
            msg = "must start with redis:// or rediss://"
            raise ValueError(msg)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: list[str]) -> list[str]:
        for entry in value:
            try:
                ip_network(entry)
            except ValueError:
                msg = f"{entry!r} is neither an address nor a network"
                raise ValueError(msg) from None
        return value

    @field_validator("worker_concurrency_max")
    @classmethod
    def _bounds_in_order(cls, value: int, info: ValidationInfo) -> int:
        lowest = info.data.get("worker_concurrency_min", 1)
        if value < lowest:
            msg = f"must not be below WORKER_CONCURRENCY_MIN, which is {lowest}"
            raise ValueError(msg)
        return value

    @field_validator("file_roots")
    @classmethod
    def _absolute_roots(cls, value: dict[str, Path]) -> dict[str, Path]:
        for name, path in value.items():
            if not path.is_absolute():
                msg = f"root {name!r} must be an absolute path"
                raise ValueError(msg)
        return value

    @field_validator("api_sources_allowed")
    @classmethod
    def _host_and_port(cls, value: list[str]) -> list[str]:
        for entry in value:
            host, _, port = entry.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                msg = f"{entry!r} is not host:port"
                raise ValueError(msg)
        return [entry.lower() for entry in value]

    @field_validator("api_sources_networks", "listen_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        # Accept host bits and drop them, as firewalls do.
        if not isinstance(value, list):
            return value
        return [ip_network(item, strict=False) for item in value]

    @field_validator("faults_enabled")
    @classmethod
    def _never_on_a_site(cls, value: bool, info: ValidationInfo) -> bool:
        if value and (info.data.get("auth_enabled") or info.data.get("colour") != "none"):
            msg = "is for the local stack only: a site has API keys and a colour, and no faults"
            raise ValueError(msg)
        return value

    @field_validator("source_clients")
    @classmethod
    def _known_kinds(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        return {_source(source): clients for source, clients in value.items()}

    @field_validator("open_sources")
    @classmethod
    def _known_kind(cls, value: list[str]) -> list[str]:
        return [_source(source) for source in value]

    @classmethod
    def load(cls) -> Self:
        """Read the settings; raise `ConfigurationError` that names the wrong variable."""
        directory = Path(os.environ.get("SECRETS_DIR") or DEFAULT_SECRETS_DIR)
        try:
            return cls(_secrets_dir=directory if directory.is_dir() else None)  # type: ignore[call-arg]
        except ValidationError as error:
            lines = [
                f"{'.'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
                for item in error.errors(include_input=False, include_url=False)
            ]
            raise ConfigurationError("; ".join(lines)) from None
        except SettingsError as error:
            # Name the field, never its value: it may be a secret.
            raise ConfigurationError(f"{error}; is it valid JSON?") from None
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the secret {error.filename}: {error.strerror}; "
                f"it must be readable by uid {os.getuid()}"
            ) from None


def _source(name: str) -> str:
    """Return a source's name as the sources write it: host names in lower case."""
    kind = name.partition(":")[0]
    if kind not in ("api", "database", "root"):
        msg = f"{name!r} must be api:HOST:PORT, database:NAME or root:NAME"
        raise ValueError(msg)
    return name.lower() if kind == "api" else name


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the process's settings, which are read once."""
    return Settings.load()
