"""The Data Collection Service: an HTTP API, its jobs and their worker."""

__version__ = "1.0.0"
