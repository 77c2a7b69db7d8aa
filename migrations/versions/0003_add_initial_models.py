"""Let jobs name the upload that holds their initial weights

Revision: 0003, after 0002.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Inline, which both databases can: SQLite takes no constraint afterwards, and rebuilding the
    # table would cascade to the rows that name its jobs.
    op.execute(
        "ALTER TABLE jobs ADD COLUMN initial_model_id VARCHAR(40) "
        "CONSTRAINT fk_jobs_initial_model_id REFERENCES models (id)"
    )
    op.create_index(op.f("ix_jobs_initial_model_id"), "jobs", ["initial_model_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_initial_model_id"), "jobs")
    op.drop_column("jobs", "initial_model_id")
