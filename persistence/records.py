"""Database records. The database is the truth; broker messages only poke.

Times are UTC. Every object belongs to a tenant. JSON columns hold the client types of
`secateur.resources` and `secateur.recipe` as plain data.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from persistence.identifiers import new_id

LIVE = ("queued", "running", "canceling")
"""Status of jobs that have not ended."""
SEARCH = "search"
"""The type of jobs that no worker runs: their trials are jobs of their own."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on every database (SQLite drops the zone; this puts it back)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """To UTC, whatever zone the caller used."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Back to an aware datetime."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


class Record(DeclarativeBase):
    """Base of all records, with constraint names that migrations can refer to."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


def _id(prefix: str) -> Mapped[str]:
    return mapped_column(String(40), primary_key=True, default=lambda: new_id(prefix))


def _unique_upload() -> Index:
    """The same bytes are kept once per tenant; deleted rows do not count."""
    live = text("deleted_at IS NULL")
    return Index(None, "tenant_id", "sha256", unique=True, sqlite_where=live, postgresql_where=live)


class TenantRecord(Record):
    """Owner of everything else."""

    __tablename__ = "tenants"
    id: Mapped[str] = _id("tnt")
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ApiKeyRecord(Record):
    """An API key; only the SHA-256 of the secret is stored."""

    __tablename__ = "api_keys"
    id: Mapped[str] = _id("key")
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(200), default="")
    prefix: Mapped[str] = mapped_column(String(16))
    secret_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    revoked_at: Mapped[datetime | None]


class ModelRecord(Record):
    """An uploaded TorchScript model."""

    __tablename__ = "models"
    id: Mapped[str] = _id("mdl")
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200), default="")
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16), default="uploaded")
    error: Mapped[dict[str, Any] | None]
    info: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    deleted_at: Mapped[datetime | None]
    """When its owner deleted it: the bytes are gone, the row stays for the jobs that name it."""
    __table_args__ = (_unique_upload(),)


class DatasetRecord(Record):
    """An uploaded dataset."""

    __tablename__ = "datasets"
    id: Mapped[str] = _id("dst")
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


class JobRecord(Record):
    """A job, its claim and its outcome.

    `attempt` is the fencing token: a claim increments it, and every later write of a worker
    carries the value it was given, so a worker whose lease was taken over cannot write.
    """

    __tablename__ = "jobs"
    id: Mapped[str] = _id("job")
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), default="queued")
    name: Mapped[str] = mapped_column(String(200), default="")
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"), index=True)
    initial_model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"), index=True)
    """The upload that holds the initial weights."""
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    """The search that this job is a trial of."""
    trial_number: Mapped[int | None] = mapped_column(Integer)
    """From 0, within the search; no search can have two of a number."""
    trial: Mapped[dict[str, Any] | None]
    """`parameters` by path, `sampler` (what it wants to remember), and once the search has seen the
    end of the trial its `outcome`."""
    loss_model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"), index=True)
    """The upload that is the loss."""
    metric_model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"), index=True)
    """The upload that is the metric."""
    recipe: Mapped[dict[str, Any] | None]
    device: Mapped[str] = mapped_column(String(8), default="auto")
    queue: Mapped[str] = mapped_column(String(8))
    stage: Mapped[str | None] = mapped_column(String(200))
    progress: Mapped[dict[str, Any] | None]
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    version: Mapped[int] = mapped_column(Integer, default=1)
    """Grows with every change and every event, so that one query tells what moved."""
    last_event_seq: Mapped[int] = mapped_column(Integer, default=0)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    """Of the request that made the job, with the hash of its body."""
    request_sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    artifacts: Mapped[list[ArtifactRecord]] = relationship(
        order_by="ArtifactRecord.id", cascade="all, delete-orphan", passive_deletes=True
    )
    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index(None, "tenant_id", "idempotency_key", unique=True),
        Index(None, "parent_id", "trial_number", unique=True),
        Index(None, "status", "queue", "id"),
        Index(None, "status", "lease_expires_at"),
    )


class StageRecord(Record):
    """One stage of one job: when it ran and what it measured."""

    __tablename__ = "stages"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int] = mapped_column(Integer)
    index: Mapped[int] = mapped_column(Integer)
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(16), default="running")
    measurement: Mapped[dict[str, Any] | None]
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]


class MetricRecord(Record):
    """One measured value of a running job."""

    __tablename__ = "metrics"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    seq: Mapped[int] = mapped_column(Integer)
    name: Mapped[str] = mapped_column(String(200))
    value: Mapped[float] = mapped_column(Float(53))
    step: Mapped[int] = mapped_column(Integer)
    stage: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    __table_args__ = (UniqueConstraint("job_id", "seq"),)


class EventRecord(Record):
    """Something that happened to a job, numbered within the job."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    seq: Mapped[int] = mapped_column(Integer)
    type: Mapped[str] = mapped_column(String(40))
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    __table_args__ = (UniqueConstraint("job_id", "seq"),)


class LogRecord(Record):
    """A chunk of what the runner of a job printed."""

    __tablename__ = "logs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int] = mapped_column(Integer)
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ArtifactRecord(Record):
    """A file a job produced; its bytes lie in the artifact store under `sha256`."""

    __tablename__ = "artifacts"
    id: Mapped[str] = _id("art")
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    media_type: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    __table_args__ = (UniqueConstraint("job_id", "kind"),)


class OutboxRecord(Record):
    """A poke that must reach the broker; written in the transaction that made it necessary."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    queue: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    sent_at: Mapped[datetime | None] = mapped_column(index=True)
