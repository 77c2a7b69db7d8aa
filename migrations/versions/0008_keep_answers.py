"""Keep answers: of requests with a key beside all that they made, of uploads that ended

Keys of jobs made before are forgotten: a request that is repeated across the upgrade makes a
second job.

Revision: 0008, after 0007.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("answer", sa.JSON(), nullable=True))
    op.add_column("uploads", sa.Column("claimed_by", sa.String(length=32), nullable=True))
    op.add_column("uploads", sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True))
    op.drop_index(op.f("ix_jobs_tenant_id_idempotency_key"), "jobs")
    op.drop_column("jobs", "request_sha256")
    op.drop_column("jobs", "idempotency_key")


def downgrade() -> None:
    op.add_column("jobs", sa.Column("idempotency_key", sa.String(length=255), nullable=True))
    op.add_column("jobs", sa.Column("request_sha256", sa.String(length=64), nullable=True))
    op.create_index(
        op.f("ix_jobs_tenant_id_idempotency_key"),
        "jobs",
        ["tenant_id", "idempotency_key"],
        unique=True,
    )
    op.drop_column("uploads", "claimed_until")
    op.drop_column("uploads", "claimed_by")
    op.drop_column("uploads", "answer")
