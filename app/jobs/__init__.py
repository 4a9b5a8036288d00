"""Collection jobs: recorded in Postgres, hinted through Redis, run by workers."""
