"""Let jobs be the trials of a search

Revision: 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Inline, as in 0003: SQLite takes no constraint afterwards.
    op.execute(
        "ALTER TABLE jobs ADD COLUMN parent_id VARCHAR(40) "
        "CONSTRAINT fk_jobs_parent_id REFERENCES jobs (id)"
    )
    op.add_column("jobs", sa.Column("trial_number", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("trial", sa.JSON(), nullable=True))
    op.create_index(
        op.f("ix_jobs_parent_id_trial_number"), "jobs", ["parent_id", "trial_number"], unique=True
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_parent_id_trial_number"), "jobs")
    op.drop_column("jobs", "trial")
    op.drop_column("jobs", "trial_number")
    op.drop_column("jobs", "parent_id")
