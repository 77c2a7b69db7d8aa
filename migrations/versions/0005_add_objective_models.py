"""Let jobs name the uploads that are their loss and their metric

Revision: 0005.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None

_COLUMNS = ("loss_model_id", "metric_model_id")


def upgrade() -> None:
    # Inline, as in 0003.
    for column in _COLUMNS:
        op.execute(
            f"ALTER TABLE jobs ADD COLUMN {column} VARCHAR(40) "
            f"CONSTRAINT fk_jobs_{column} REFERENCES models (id)"
        )
        op.create_index(op.f(f"ix_jobs_{column}"), "jobs", [column], unique=False)


def downgrade() -> None:
    for column in reversed(_COLUMNS):
        op.drop_index(op.f(f"ix_jobs_{column}"), "jobs")
        op.drop_column("jobs", column)
