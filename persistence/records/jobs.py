"""Jobs, what happened to them, what they produced, and whose turn is next."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from persistence.records.base import Record, identifier, utc_now

LIVE = ("queued", "running", "canceling")
"""Status of jobs that have not ended."""
SEARCH = "search"
"""The type of jobs that no worker runs: their trials are jobs of their own."""


class JobRecord(Record):
    """A job, its claim and its outcome.

    `attempt` is the fencing token: a claim increments it, and every later write of a worker
    carries the value it was given, so a worker whose lease was taken over cannot write.
    """

    __tablename__ = "jobs"
    id: Mapped[str] = identifier("job")
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
    retry_of_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    """The ended job that this one tries again, from its last checkpoint."""
    recipe: Mapped[dict[str, Any] | None]
    device: Mapped[str] = mapped_column(String(8), default="auto")
    queue: Mapped[str] = mapped_column(String(8))
    stage: Mapped[str | None] = mapped_column(String(200))
    progress: Mapped[dict[str, Any] | None]
    priority: Mapped[int] = mapped_column(Integer, default=0)
    """Within the tenant's own jobs; the highest first."""
    deadline: Mapped[datetime | None]
    """When the job must have ended; it is `expired` otherwise."""
    expires_at: Mapped[datetime | None]
    """When it expires if nothing changes: at the deadline, or while it waits when it has waited as
    long as it may."""
    max_wait_seconds: Mapped[int | None] = mapped_column(Integer)
    """How long it may wait in the queue, all waits together."""
    max_run_seconds: Mapped[int | None] = mapped_column(Integer)
    """How long it may run, all attempts together."""
    waited_seconds: Mapped[float] = mapped_column(Float(53), default=0.0)
    """Of waits that have ended."""
    ran_seconds: Mapped[float] = mapped_column(Float(53), default=0.0)
    """Of attempts that have ended."""
    clock_started_at: Mapped[datetime] = mapped_column(default=utc_now)
    """When the present wait or attempt began."""
    charged_seconds: Mapped[float] = mapped_column(Float(53), default=0.0)
    """What the tenant's share was charged for the present attempt so far."""
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    version: Mapped[int] = mapped_column(Integer, default=1)
    """Grows with every change and every event, so that one query tells what moved."""
    last_event_seq: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    artifacts: Mapped[list[ArtifactRecord]] = relationship(
        order_by="ArtifactRecord.id", cascade="all, delete-orphan", passive_deletes=True
    )

    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index(None, "parent_id", "trial_number", unique=True),
        Index(None, "status", "queue", "id"),
        Index(None, "status", "lease_expires_at"),
        Index(None, "status", "expires_at"),
    )


_WAITS = text("status = 'queued' AND type <> 'search'")
Index(
    "ix_jobs_turn",
    JobRecord.tenant_id,
    JobRecord.queue,
    JobRecord.priority.desc(),
    JobRecord.id,
    postgresql_where=_WAITS,
    sqlite_where=_WAITS,
)
"""A tenant's waiting jobs in the order in which workers take them."""


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
    id: Mapped[str] = identifier("art")
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


_BUSY = text("waiting > 0 OR running > 0")


class QueueShareRecord(Record):
    """One tenant's turn in one queue: stride scheduling, all tenants with the same weight."""

    __tablename__ = "queue_shares"
    tenant_id: Mapped[str] = mapped_column(
        ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True
    )
    queue: Mapped[str] = mapped_column(String(8), primary_key=True)
    waiting: Mapped[int] = mapped_column(Integer, default=0)
    """Jobs of the tenant in the queue that no worker has."""
    running: Mapped[int] = mapped_column(Integer, default=0)
    """Those that workers have."""
    used_seconds: Mapped[float] = mapped_column(Float(53), default=0.0)
    """What the tenant has had of the queue; the least is served next."""
    __table_args__ = (
        Index(None, "queue", "used_seconds"),
        Index(
            "ix_queue_shares_turn",
            "queue",
            "used_seconds",
            "tenant_id",
            postgresql_where=_BUSY,
            sqlite_where=_BUSY,
        ),
    )


class WorkerRecord(Record):
    """A worker process, as it last said it was."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    """Its name as owner of leases."""
    queues: Mapped[list[Any]]
    sandbox: Mapped[dict[str, Any]]
    """What its runners are contained by."""
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    seen_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
