"""Keep copies of models, and beside them the hashes of the files that were uploaded

Models that are there keep their files as they came; their two hashes are the same.

Revision: 0010, after 0009.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("upload_sha256", sa.String(length=64), nullable=True))
    op.execute("UPDATE models SET upload_sha256 = sha256")
    op.create_index(
        op.f("ix_models_tenant_id_upload_sha256"), "models", ["tenant_id", "upload_sha256"]
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_models_tenant_id_upload_sha256"), "models")
    op.drop_column("models", "upload_sha256")
