"""Who owns and who may: tenants, their API keys, and the log of what was changed with them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from persistence.records.base import Record, identifier, utc_now

SCOPES = ("read", "write", "admin")
"""What a key may be allowed to do."""


class TenantRecord(Record):
    """Owner of everything else."""

    __tablename__ = "tenants"
    id: Mapped[str] = identifier("tnt")
    name: Mapped[str] = mapped_column(String(200), unique=True)
    quotas: Mapped[dict[str, Any] | None]
    """Quotas of its own, by name, in place of the settings'."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ApiKeyRecord(Record):
    """An API key; only the SHA-256 of the secret is stored."""

    __tablename__ = "api_keys"
    id: Mapped[str] = identifier("key")
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(200), default="")
    prefix: Mapped[str] = mapped_column(String(16))
    secret_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[Any]] = mapped_column(default=lambda: list(SCOPES))
    expires_at: Mapped[datetime | None]
    replaced_by_id: Mapped[str | None] = mapped_column(String(40))
    """The key that a rotation made in its place."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    revoked_at: Mapped[datetime | None]


class AuditRecord(Record):
    """One change that a request made, or was refused."""

    __tablename__ = "audit_log"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    key_id: Mapped[str | None] = mapped_column(String(40))
    """The API key of the request; None for what the service did by itself."""
    action: Mapped[str] = mapped_column(String(80))
    """Id of the operation in the API description, such as `delete_model`."""
    target: Mapped[str] = mapped_column(String(80), default="")
    """Id of what was changed."""
    status: Mapped[int]
    """The HTTP status of the answer; 0 until there is one."""
    request_id: Mapped[str] = mapped_column(String(64), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    """Where the request came from."""
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    __table_args__ = (Index(None, "tenant_id", "id"),)
