"""Running jobs in each share, the order of turns, the shares of old jobs, when jobs expire

Revision: 0009, after 0008.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_WAITS = sa.text("status = 'queued' AND type <> 'search'")
_BUSY = sa.text("waiting > 0 OR running > 0")


def upgrade() -> None:
    op.add_column(
        "queue_shares", sa.Column("running", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column(
        "jobs",
        sa.Column("charged_seconds", sa.Float(precision=53), nullable=False, server_default="0"),
    )
    op.add_column("jobs", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_jobs_status_deadline", "jobs")
    op.create_index("ix_jobs_status_expires_at", "jobs", ["status", "expires_at"])
    op.execute(
        "INSERT INTO queue_shares (tenant_id, queue, waiting, running, used_seconds) "
        "SELECT tenant_id, queue, SUM(CASE WHEN status = 'queued' THEN 1 ELSE 0 END), "
        "SUM(CASE WHEN status = 'queued' THEN 0 ELSE 1 END), 0 FROM jobs "
        "WHERE status IN ('queued', 'running', 'canceling') AND type <> 'search' "
        "GROUP BY tenant_id, queue"
    )
    op.create_index(
        "ix_queue_shares_turn",
        "queue_shares",
        ["queue", "used_seconds", "tenant_id"],
        postgresql_where=_BUSY,
        sqlite_where=_BUSY,
    )
    op.create_index(
        "ix_jobs_turn",
        "jobs",
        ["tenant_id", "queue", sa.text("priority DESC"), "id"],
        postgresql_where=_WAITS,
        sqlite_where=_WAITS,
    )
    op.drop_index("ix_jobs_tenant_id_queue_status_priority_id", "jobs")


def downgrade() -> None:
    op.create_index(
        "ix_jobs_tenant_id_queue_status_priority_id",
        "jobs",
        ["tenant_id", "queue", "status", "priority", "id"],
    )
    op.drop_index("ix_jobs_turn", "jobs")
    op.drop_index("ix_queue_shares_turn", "queue_shares")
    op.drop_index("ix_jobs_status_expires_at", "jobs")
    op.create_index("ix_jobs_status_deadline", "jobs", ["status", "deadline"])
    op.drop_column("jobs", "expires_at")
    op.drop_column("jobs", "charged_seconds")
    op.drop_column("queue_shares", "running")
    op.execute("DELETE FROM queue_shares")
