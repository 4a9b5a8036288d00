"""Create jobs, results, idempotency keys, API keys, items and the grants of the service's users."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE schema_version (
    version integer PRIMARY KEY,
    lowest_compatible integer NOT NULL CHECK (lowest_compatible <= version),
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_version IS
    'One row for each migration that ran, and the lowest schema whose code still works after it';

CREATE TABLE api_keys (
    key_hash bytea PRIMARY KEY CHECK (length(key_hash) = 32),
    id text NOT NULL UNIQUE GENERATED ALWAYS AS (left(encode(key_hash, 'hex'), 12)) STORED,
    client text NOT NULL CHECK (client <> ''),
    label text,
    scopes text[] CHECK (cardinality(scopes) > 0),
    rate_limit_per_min integer CHECK (rate_limit_per_min > 0),
    origin text NOT NULL DEFAULT 'file' CHECK (origin IN ('file', 'command')),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    revoked_by text CHECK (revoked_by IN ('file', 'command')),
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
COMMENT ON COLUMN api_keys.scopes IS 'What the key is good for; null means everything';
COMMENT ON COLUMN api_keys.rate_limit_per_min IS 'Null means the service''s own limit';

CREATE TABLE items (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client text NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    client text NOT NULL,
    source_type text NOT NULL,
    payload_version integer NOT NULL,
    config jsonb NOT NULL,
    needs text,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN
        ('queued', 'running', 'succeeded', 'failed', 'dead', 'cancelled')),
    attempts integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    run_after timestamptz NOT NULL DEFAULT now(),
    lease_epoch bigint NOT NULL DEFAULT 0,
    lease_owner text,
    lease_expires_at timestamptz,
    processed bigint NOT NULL DEFAULT 0,
    total bigint,
    error jsonb,
    request_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((state = 'running') = (lease_expires_at IS NOT NULL)),
    CHECK ((state IN ('succeeded', 'failed', 'dead', 'cancelled')) = (finished_at IS NOT NULL))
);
COMMENT ON COLUMN jobs.needs IS 'What a worker must have to run the job, such as root:inbox';
COMMENT ON COLUMN jobs.lease_epoch IS 'Grows with each claim; a worker with an older one is fenced';
CREATE INDEX jobs_due ON jobs (run_after, id) WHERE state = 'queued';
CREATE INDEX jobs_leases ON jobs (lease_expires_at) WHERE state = 'running';
CREATE INDEX jobs_dead ON jobs (finished_at) WHERE state = 'dead';
CREATE INDEX jobs_by_client ON jobs (client, created_at DESC, id DESC);
CREATE INDEX jobs_by_age ON jobs (created_at DESC, id DESC);
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE job_results (
    job_id uuid PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    result json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE job_rows (
    job_id uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    part integer NOT NULL CHECK (part >= 0),
    rows json NOT NULL,
    PRIMARY KEY (job_id, part)
);
COMMENT ON TABLE job_rows IS 'Rows of the report of a finished job, up to some thousand a part';

CREATE TABLE idempotency_keys (
    client text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    job_id uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_job ON idempotency_keys (job_id);
"""

# A local stack may have one role only. There the owner is also the service's user.
RIGHTS = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'airlift_app')
       AND current_user <> 'airlift_app' THEN
        GRANT USAGE ON SCHEMA public TO airlift_app;
        GRANT SELECT ON schema_version, api_keys TO airlift_app;
        GRANT SELECT, INSERT, UPDATE, DELETE
            ON items, jobs, job_results, job_rows, idempotency_keys TO airlift_app;
        GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO airlift_app;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public
            GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO airlift_app;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO airlift_app;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'airlift_monitor')
       AND current_user <> 'airlift_monitor' THEN
        GRANT USAGE ON SCHEMA public TO airlift_monitor;
        GRANT SELECT ON schema_version TO airlift_monitor;
    END IF;
    -- What a `database` source on the site's own Postgres may read: no key, no job.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'airlift_reader')
       AND current_user <> 'airlift_reader' THEN
        GRANT USAGE ON SCHEMA public TO airlift_reader;
        GRANT SELECT (id, name, created_at) ON items TO airlift_reader;
    END IF;
END
$$;
"""


def upgrade() -> None:
    """Create all tables; the installation of Postgres creates the roles."""
    op.execute(TABLES)
    op.execute(RIGHTS)
    op.execute("INSERT INTO schema_version (version, lowest_compatible) VALUES (1, 1)")


def downgrade() -> None:
    """Raise: to go back, restore a backup."""
    raise NotImplementedError("a migration is not undone; restore the backup taken before it")
