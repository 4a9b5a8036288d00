"""Postgres: the connection pool, the schema's version, the migrations."""
