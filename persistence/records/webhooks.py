"""Webhooks, what they were to be told, and every attempt to tell them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from persistence.records.base import Record, identifier, utc_now


class WebhookRecord(Record):
    """Where a tenant wants to be told what."""

    __tablename__ = "webhooks"
    id: Mapped[str] = identifier("whk")
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(String(2000))
    description: Mapped[str] = mapped_column(String(200), default="")
    event_types: Mapped[list[Any]]
    """Such as `job.succeeded`; empty means all."""
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    secret: Mapped[str] = mapped_column(String(100))
    """Signs what is sent, so it is stored as it is (Standard Webhooks, `whsec_...`)."""
    previous_secret: Mapped[str | None] = mapped_column(String(100))
    previous_secret_expires_at: Mapped[datetime | None]
    """Until then both sign."""
    failing_since: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    deleted_at: Mapped[datetime | None]
    __table_args__ = (Index(None, "tenant_id", "id"),)


class DeliveryRecord(Record):
    """One message for one webhook; its id is the same at every attempt."""

    __tablename__ = "webhook_deliveries"
    id: Mapped[str] = identifier("msg")
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    event_type: Mapped[str] = mapped_column(String(80))
    payload: Mapped[str] = mapped_column(Text)
    """The body, byte for byte as it is signed."""
    status: Mapped[str] = mapped_column(String(16), default="pending")
    """`pending`, `delivered` or `failed`."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    delivered_at: Mapped[datetime | None]
    __table_args__ = (Index(None, "webhook_id", "id"), Index(None, "status", "next_attempt_at"))


class DeliveryAttemptRecord(Record):
    """One attempt of one delivery."""

    __tablename__ = "webhook_attempts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    delivery_id: Mapped[str] = mapped_column(
        ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), index=True
    )
    number: Mapped[int] = mapped_column(Integer)
    status_code: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str] = mapped_column(Text, default="")
    response: Mapped[str] = mapped_column(Text, default="")
    """The beginning of what the receiver answered."""
    elapsed_ms: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
