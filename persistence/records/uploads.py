"""What tenants bring: models, datasets, and files that arrive in parts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from persistence.records.base import Record, identifier, utc_now


def _unique_upload() -> Index:
    """The same bytes are kept once per tenant; deleted rows do not count."""
    live = text("deleted_at IS NULL")
    return Index(None, "tenant_id", "sha256", unique=True, sqlite_where=live, postgresql_where=live)


class ModelRecord(Record):
    """An uploaded TorchScript model."""

    __tablename__ = "models"
    id: Mapped[str] = identifier("mdl")
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200), default="")
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    """Of the copy that is kept, and with it the name of its blob."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    """Of the copy."""
    upload_sha256: Mapped[str | None] = mapped_column(String(64))
    """Of the file that was uploaded, which is gone: the same file again is the same model."""
    status: Mapped[str] = mapped_column(String(16), default="uploaded")
    error: Mapped[dict[str, Any] | None]
    info: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    deleted_at: Mapped[datetime | None]
    """When its owner deleted it: the bytes are gone, the row stays for the jobs that name it."""
    __table_args__ = (_unique_upload(), Index(None, "tenant_id", "upload_sha256"))


class DatasetRecord(Record):
    """An uploaded dataset."""

    __tablename__ = "datasets"
    id: Mapped[str] = identifier("dst")
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200), default="")
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str] = mapped_column(String(16))
    tensors: Mapped[list[Any]]
    splits: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    deleted_at: Mapped[datetime | None]
    """When its owner deleted it: the bytes are gone, the row stays for the jobs that name it."""
    __table_args__ = (_unique_upload(),)


class UploadRecord(Record):
    """A file that arrives in parts, and becomes a model or a dataset when it is complete."""

    __tablename__ = "uploads"
    id: Mapped[str] = identifier("upl")
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    """`model` or `dataset`."""
    name: Mapped[str] = mapped_column(String(200), default="")
    status: Mapped[str] = mapped_column(String(16), default="open")
    """`open`, `completed`, `refused` by the gate, or `aborted`."""
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Size of the whole file, if it was announced."""
    sha256: Mapped[str | None] = mapped_column(String(64), info={"blob": False})
    """Of the whole file, if it was announced: a promise, not a blob."""
    resource_id: Mapped[str | None] = mapped_column(String(40))
    """The model or dataset it became."""
    answer: Mapped[dict[str, Any] | None]
    """What completing it was answered with, `{status, headers, body}`; completing it again is
    answered the same."""
    claimed_by: Mapped[str | None] = mapped_column(String(32))
    """The request that puts it together, so that no two do at once and no part changes."""
    claimed_until: Mapped[datetime | None]
    """When that request, if it has not said otherwise, is taken for dead."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]
    """When an upload that nobody completes is given up; of one that ended, when it is forgotten."""
    __table_args__ = (Index(None, "tenant_id", "id"), Index(None, "status", "expires_at"))


class UploadPartRecord(Record):
    """One part; its bytes lie in the artifact store under `sha256` until the upload ends."""

    __tablename__ = "upload_parts"
    upload_id: Mapped[str] = mapped_column(
        ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    """From 1."""
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
