"""Add an index on due jobs by need, so that a claim never reads another host's rows."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build the index while jobs are inserted; drop the invalid one of an interrupted attempt."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS jobs_due_by_need")
        op.execute(
            """CREATE INDEX CONCURRENTLY jobs_due_by_need
               ON jobs (payload_version, (coalesce(needs, '')), run_after, id)
               WHERE state = 'queued'"""
        )
    op.execute("INSERT INTO schema_version (version, lowest_compatible) VALUES (2, 1)")


def downgrade() -> None:
    """Raise: to go back, restore a backup."""
    raise NotImplementedError("a migration is not undone; restore the backup taken before it")
