"""Parts of uploads, turns and clocks of jobs, webhooks, scopes of keys, the audit log

Revision: 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("queues", sa.JSON(), nullable=False),
        sa.Column("sandbox", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index(op.f("ix_workers_seen_at"), "workers", ["seen_at"], unique=False)

    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=True),
        sa.Column("action", sa.String(length=80), nullable=False),
        sa.Column("target", sa.String(length=80), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_audit_log_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(
        op.f("ix_audit_log_tenant_id_id"), "audit_log", ["tenant_id", "id"], unique=False
    )

    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("operation", sa.String(length=200), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=True),
        sa.Column("body", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenants.id"],
            name=op.f("fk_idempotency_keys_tenant_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(
        op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False
    )

    op.create_table(
        "queue_shares",
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("queue", sa.String(length=8), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("used_seconds", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenants.id"],
            name=op.f("fk_queue_shares_tenant_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "queue", name=op.f("pk_queue_shares")),
    )
    op.create_index(
        op.f("ix_queue_shares_queue_used_seconds"),
        "queue_shares",
        ["queue", "used_seconds"],
        unique=False,
    )

    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("resource_id", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_uploads_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(
        op.f("ix_uploads_status_expires_at"), "uploads", ["status", "expires_at"], unique=False
    )
    op.create_index(op.f("ix_uploads_tenant_id_id"), "uploads", ["tenant_id", "id"], unique=False)

    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=False),
        sa.Column("event_types", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("secret", sa.String(length=100), nullable=False),
        sa.Column("previous_secret", sa.String(length=100), nullable=True),
        sa.Column("previous_secret_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_webhooks_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(op.f("ix_webhooks_tenant_id_id"), "webhooks", ["tenant_id", "id"], unique=False)

    op.create_table(
        "upload_parts",
        sa.Column("upload_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["uploads.id"],
            name=op.f("fk_upload_parts_upload_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("upload_id", "number", name=op.f("pk_upload_parts")),
    )
    op.create_index(op.f("ix_upload_parts_sha256"), "upload_parts", ["sha256"], unique=False)

    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("webhook_id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("event_type", sa.String(length=80), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenants.id"],
            name=op.f("fk_webhook_deliveries_tenant_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_webhook_deliveries_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(
        op.f("ix_webhook_deliveries_status_next_attempt_at"),
        "webhook_deliveries",
        ["status", "next_attempt_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_webhook_deliveries_webhook_id_id"),
        "webhook_deliveries",
        ["webhook_id", "id"],
        unique=False,
    )

    op.create_table(
        "webhook_attempts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("delivery_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("response", sa.Text(), nullable=False),
        sa.Column("elapsed_ms", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["webhook_deliveries.id"],
            name=op.f("fk_webhook_attempts_delivery_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_attempts")),
    )
    op.create_index(
        op.f("ix_webhook_attempts_delivery_id"), "webhook_attempts", ["delivery_id"], unique=False
    )

    op.add_column(
        "api_keys",
        sa.Column("scopes", sa.JSON(), nullable=False, server_default='["read", "write", "admin"]'),
    )
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("replaced_by_id", sa.String(length=40), nullable=True))

    # Inline, as in 0003: SQLite takes no constraint afterwards.
    op.execute(
        "ALTER TABLE jobs ADD COLUMN retry_of_id VARCHAR(40) "
        "CONSTRAINT fk_jobs_retry_of_id REFERENCES jobs (id)"
    )
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("deadline", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("max_wait_seconds", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("max_run_seconds", sa.Integer(), nullable=True))
    op.add_column(
        "jobs",
        sa.Column("waited_seconds", sa.Float(precision=53), nullable=False, server_default="0"),
    )
    op.add_column(
        "jobs", sa.Column("ran_seconds", sa.Float(precision=53), nullable=False, server_default="0")
    )
    op.add_column(
        "jobs",
        sa.Column(
            "clock_started_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default="1970-01-01 00:00:00+00:00",
        ),
    )
    # nothing tells how long old jobs waited and ran; they are on the clock since they were made
    op.execute("UPDATE jobs SET clock_started_at = created_at")
    op.create_index(op.f("ix_jobs_retry_of_id"), "jobs", ["retry_of_id"], unique=False)
    op.create_index(op.f("ix_jobs_status_deadline"), "jobs", ["status", "deadline"], unique=False)
    op.create_index(
        op.f("ix_jobs_tenant_id_queue_status_priority_id"),
        "jobs",
        ["tenant_id", "queue", "status", "priority", "id"],
        unique=False,
    )

    op.add_column("tenants", sa.Column("quotas", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("tenants", "quotas")

    op.drop_index(op.f("ix_jobs_tenant_id_queue_status_priority_id"), "jobs")
    op.drop_index(op.f("ix_jobs_status_deadline"), "jobs")
    op.drop_index(op.f("ix_jobs_retry_of_id"), "jobs")
    op.drop_column("jobs", "clock_started_at")
    op.drop_column("jobs", "ran_seconds")
    op.drop_column("jobs", "waited_seconds")
    op.drop_column("jobs", "max_run_seconds")
    op.drop_column("jobs", "max_wait_seconds")
    op.drop_column("jobs", "deadline")
    op.drop_column("jobs", "priority")
    op.drop_column("jobs", "retry_of_id")

    op.drop_column("api_keys", "replaced_by_id")
    op.drop_column("api_keys", "expires_at")
    op.drop_column("api_keys", "scopes")

    op.drop_index(op.f("ix_webhook_attempts_delivery_id"), "webhook_attempts")

    op.drop_table("webhook_attempts")
    op.drop_index(op.f("ix_webhook_deliveries_webhook_id_id"), "webhook_deliveries")
    op.drop_index(op.f("ix_webhook_deliveries_status_next_attempt_at"), "webhook_deliveries")

    op.drop_table("webhook_deliveries")
    op.drop_index(op.f("ix_upload_parts_sha256"), "upload_parts")

    op.drop_table("upload_parts")
    op.drop_index(op.f("ix_webhooks_tenant_id_id"), "webhooks")

    op.drop_table("webhooks")
    op.drop_index(op.f("ix_uploads_tenant_id_id"), "uploads")
    op.drop_index(op.f("ix_uploads_status_expires_at"), "uploads")

    op.drop_table("uploads")
    op.drop_index(op.f("ix_queue_shares_queue_used_seconds"), "queue_shares")

    op.drop_table("queue_shares")
    op.drop_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys")

    op.drop_table("idempotency_keys")
    op.drop_index(op.f("ix_audit_log_tenant_id_id"), "audit_log")

    op.drop_table("audit_log")
    op.drop_index(op.f("ix_workers_seen_at"), "workers")

    op.drop_table("workers")
