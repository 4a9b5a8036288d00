"""Collection jobs: stored in Postgres, announced through Redis, run by workers."""
