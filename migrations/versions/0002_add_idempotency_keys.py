"""Add idempotency keys to jobs

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("idempotency_key", sa.String(length=255), nullable=True))
    op.add_column("jobs", sa.Column("request_sha256", sa.String(length=64), nullable=True))
    op.create_index(
        op.f("ix_jobs_tenant_id_idempotency_key"),
        "jobs",
        ["tenant_id", "idempotency_key"],
        unique=True,
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_tenant_id_idempotency_key"), "jobs")
    op.drop_column("jobs", "request_sha256")
    op.drop_column("jobs", "idempotency_key")
